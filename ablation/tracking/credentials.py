"""User, password and token of a tracking store: in this process and its children, and nowhere else.

They come from MLflow's own environment variables or from ~/.mlflow/credentials. Those in an address
are taken out of it before anything can store, print or link it, and go into the same environment
variables, which is how the processes of runs and Slurm's jobs get them.
"""

from __future__ import annotations

import logging
import os
import re
from urllib.parse import parse_qsl, quote, unquote, urlencode

from ablation.errors import UsageError, hide

log = logging.getLogger(__name__)

USERNAME, PASSWORD, TOKEN = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(.*)", re.DOTALL)
_USER_NAMES = {"user", "username"}
_PASSWORD_NAMES = {"password", "passwd", "pwd", "pass"}
_SECRET_NAME = re.compile(r"token|secret|passw|pwd|key|auth|credential|signature|\bsig\b", re.IGNORECASE)
_HOW = (
    "were taken out of the address: they are used for this command and stored nowhere. Better give them as "
    f"{USERNAME} and {PASSWORD} (or {TOKEN}), or in ~/.mlflow/credentials"
)
NO_CREDENTIALS = (
    "holds an address with a user or password, which would be stored; leave them out and give them in the "
    "environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)
"""Why a setting that is stored is refused."""

_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\",{}\[\]]*")


def without_credentials(address: str) -> str:
    """The address without user, password and token, which go into the environment of this process.

    Of a server's address the query goes as well, since MLflow has no use for it; of a database's
    only what is secret. Addresses of files hold none.

    Raises:
        UsageError: it cannot be read as an address, or a secret cannot be passed on. It is not shown.
    """
    if _is_file(address) or ("@" not in address and "?" not in address):
        return address
    match = _ADDRESS.fullmatch(address)
    if match is None or "${" in address:
        reason = "it holds an @, ? or ${...} but is no address such as http://HOST:PORT"
        raise UsageError(f"tracking.uri: {reason}; give user and password as {USERNAME} and {PASSWORD}")
    scheme, rest = match.groups()
    is_server = scheme.lower().startswith("http")
    userinfo, _, location = rest.rpartition("@")  # a password may hold an @, and also a / or a #
    user, colon, password = userinfo.partition(":")
    taken = {USERNAME: unquote(user), PASSWORD: unquote(password)}
    if user and not colon and is_server and not os.environ.get(PASSWORD):
        taken = {TOKEN: unquote(user)}  # http://TOKEN@host, as some hosted servers write it
    location, from_query = _without_secret_parameters(location, is_server)
    taken = {name: value for name, value in {**taken, **from_query}.items() if value}
    if taken:
        os.environ.update(taken)
        log.warning("tracking.uri: user and password %s", _HOW)
    hide_environment()
    return scheme + location


def _is_file(address: str) -> bool:
    return re.match(r"(sqlite(\+\w+)?|file):///", address) is not None


def _without_secret_parameters(location: str, is_server: bool) -> tuple[str, dict[str, str]]:
    """(what comes after user and password, without its secrets; those, by environment variable)."""
    place, mark, query = location.partition("?")
    taken: dict[str, str] = {}
    harmless = []
    for name, value in parse_qsl(query.partition("#")[0], keep_blank_values=True):
        if name.lower() in _USER_NAMES:
            taken[USERNAME] = value
        elif name.lower() in _PASSWORD_NAMES:
            taken[PASSWORD] = value
        elif is_server and "token" in name.lower():
            taken[TOKEN] = value
        elif not _SECRET_NAME.search(name):
            harmless.append((name, value))
        elif not is_server:
            raise UsageError(
                f"tracking.uri: {name}= in the address looks like a secret and would be stored; give it in "
                "the database driver's own environment or configuration file"
            )
    place = place.partition("#")[0] if is_server else place
    kept_query = not is_server and harmless
    return place + (mark + urlencode(harmless) if kept_query else ""), taken


def with_credentials(address: str, username: str | None, password: str | None) -> str:
    """A database's address with user and password for the driver; never to be stored or printed."""
    match = _ADDRESS.fullmatch(address)
    if match is None or _is_file(address) or address.lower().startswith("http") or not username:
        return address
    scheme, rest = match.groups()
    userinfo = quote(username, safe="") + (f":{quote(password, safe='')}" if password else "")
    return f"{scheme}{userinfo}@{rest}"


def holds_credentials(text: str) -> bool:
    """Whether an address in a text has a user, a password or a token."""
    for address in _IN_TEXT.findall(text):
        names = [name.lower() for name, _ in parse_qsl(address.partition("?")[2], keep_blank_values=True)]
        secret = any(_SECRET_NAME.search(name) or name in _USER_NAMES | _PASSWORD_NAMES for name in names)
        if not _is_file(address) and ("@" in address or secret):
            return True
    return False


def clean_argument(argument: str) -> str:
    """An argument of the command line without the user and password of a tracking store's address.

    Raises:
        UsageError: another argument holds an address with a user or password, and would store it.
    """
    key, sign, value = argument.partition("=")
    name = key.lstrip("+~")
    if sign and name in ("uri", "tracking.uri"):
        mark = value[:1] if value[:1] in ("'", '"') and value[:1] == value[-1:] else ""
        bare = value.strip(mark) if mark else value
        return f"{key}={mark}{without_credentials(bare)}{mark}"
    if sign and holds_credentials(value):
        raise UsageError(f"{name}: {NO_CREDENTIALS}")
    return argument


def hide_environment() -> None:
    """Let no message show the password or the token that this process has."""
    for name in (PASSWORD, TOKEN):
        hide(os.environ.get(name, ""))


hide_environment()
