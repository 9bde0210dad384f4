"""Words in the heads of log lines: names of levels, and words that show that a line is prose."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


COLON_WORDS = _words(
    "error err warning warn fatal critical crit severe info debug notice trace emerg fail silly fehler warnung erreur"
    " errore erro"
)
"""Levels at the start of a line before a colon, in any case, as printed by compilers, PHP and shell tools."""
COLON_CODES = _words("dbug trce crit fail")
"""Levels of .NET's console logger."""
LOCAL_WORDS = _words(
    """
    fehler warnung schwerwiegend hinweis erreur avertissement grave advertencia aviso errore avvertenza avviso
    attenzione attention erro fout waarschuwing varning hata uyar\u0131 błąd ostrzeżenie chyba varování fejl advarsel
    """
)
"""Levels in other languages. They are ordinary words too, so a separator must follow."""
BELOW_WARNING = frozenset({"DEBUG", "INFO"})
OTHER_MEANINGS = _words("config fine finer finest log success failure information informational verbose panic alert")
"""Names of levels that are ordinary words too; they count only in upper case or in brackets."""
NOUNS_AFTER = _words(
    """
    handling handler handlers message messages code codes log logs logging level levels page pages sign signs desk mode
    modes build builds output report reports reporting rate rates count counts budget budgets correction label labels
    light lights text bar bars margin margins symbol symbols accident accidents mistake flaw flaws condition conditions
    type types class classes state states bit bits flag flags value values number numbers constant box boxes screen
    line lines file files entry entries point points session sessions package packages
    is are was were be been has have had can may might must will would should does did do
    and or nor but if of to by that which who this these those means then than about for the
    a an occurs occurred appears returned raised
    stack stacktrace backtrace details
    weather thinking care mass acclaim review reviews damage infrastructure
    """
)
"""Words after the name of a level by which it is a noun in prose, even if a colon follows later."""
PROSE_AFTER = NOUNS_AFTER | _words("in when from on at as with")
"""Words after "ERROR" or "WARNING" by which it is a noun in prose, not a level."""
CALENDAR = _words("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec Mon Tue Wed Thu Fri Sat Sun")
"""Beginnings of times that start with a month or weekday."""
NO_LOGGER = _words(
    """
    the a an no this that these those with and or of to in on for from by at as is are was were be got get has have had
    it its we you they he she not use see if when then any some all each every my our your his her their
    """
)
"""Words that are not the name of a logger, host or thread, but begin a sentence."""
PROSE_BEFORE = _words(
    """
    fix fixes fixed solve solves silence silences avoid avoids
    common possible typical such following good bad simple new same other another only also
    class def except raise return import case while elif else try end select create insert drop grant let const var
    """
)
"""Words before the name of a level by which it is part of prose or source code."""
