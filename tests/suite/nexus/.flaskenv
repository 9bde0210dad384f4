FLASK_APP=run.py
FLASK_ENV=production
SERVICE_NAME=nexus
