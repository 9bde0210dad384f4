"""helmctl doctor and helmctl why."""
