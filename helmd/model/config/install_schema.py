"""The settings of modules that Helm installs from git; part of the tables in `helmd.model.config.service_schema` and
`helmd.model.config.schema`.
"""

from helmd.model.config import validators as values
from helmd.model.config.setting import Setting

INSTALL_SETTINGS = (
    Setting(
        "install.source",
        values.git_source,
        "git source",
        "none",
        "Where helmctl modules install has its code from: the https or ssh URL of a git repository, or, if "
        "modules.files in helm.toml allows it, the absolute path of one.",
    ),
    Setting("install.ref", values.git_ref, "git ref", "the default branch", "The branch, tag or commit to install."),
    Setting(
        "install.interpreter",
        values.interpreter,
        "program",
        "python3",
        'The interpreter that its virtual environment is made with: "python3.12", or an absolute path.',
    ),
    Setting(
        "install.python",
        values.python_version,
        "version",
        "any",
        'The oldest version of Python that it runs on: "3.12".',
    ),
    Setting(
        "install.requirements",
        values.relative_path,
        "path",
        "requirements.txt",
        "The file in its tree that says what pip installs. Without such a file, nothing is installed.",
    ),
    Setting(
        "install.constraints",
        values.constraints,
        "list of versions",
        "[]",
        'Versions of packages that pip may install for it: ["sqlalchemy<2.1"] (pip, "Constraints Files").',
    ),
    Setting(
        "install.system_packages",
        values.boolean,
        "boolean",
        "false",
        "Whether it also finds the Python packages of the distribution.",
    ),
    Setting(
        "install.submodules",
        values.boolean,
        "boolean",
        "false",
        "Whether a tree with submodules of git is installed, without what is in them. It is refused otherwise.",
    ),
    Setting(
        "install.migrate",
        values.words,
        "words",
        "none",
        "The command that brings its database to the state that a version needs. It runs in the version's directory, "
        "with the service's environment, while the service is stopped.",
    ),
    Setting(
        "install.after_update",
        values.words,
        "words",
        "none",
        "The command that runs in the same way once a new version serves.",
    ),
)
"""Of a service."""

MODULE_SETTINGS = (
    Setting(
        "modules.files",
        values.boolean,
        "boolean",
        "false",
        "Whether modules may be installed from git repositories on this machine, by their paths.",
    ),
    Setting(
        "modules.max_size",
        values.size,
        "size",
        "2G",
        "How large the repository of a module may be, and each of its versions; what is larger is refused.",
    ),
    Setting(
        "modules.build_timeout",
        values.duration,
        "duration",
        "20min",
        "How long each step of building a version may take: fetching, checking out, installing packages.",
    ),
    Setting(
        "modules.check",
        values.boolean,
        "boolean",
        "true",
        "Whether it is looked once a day whether there are updates of modules. That fetches their repositories, and "
        "changes nothing.",
    ),
    Setting(
        "modules.gate",
        values.duration,
        "duration",
        "60s",
        "How long a new version of a module is watched before an update is final. Until then, a restart, a failed "
        "health check, a page that is not answered as before, or more errors than before roll the update back.",
    ),
)
"""Of Helm itself."""
