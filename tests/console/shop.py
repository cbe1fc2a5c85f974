"""The container of the pictures: a shop whose processes are in most states that there are."""

from corex.wire.process import Backoff, ProcessSpec, Readiness, Schedule

_ENV = {"PATH": "/bin"}


def _sh(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


_REQUESTS = r"""
echo "listening on port 8080"
n=0
while true; do
  n=$((n + 1))
  printf '\033[2m%s\033[0m \033[32mGET\033[0m /basket/%s \033[1m200\033[0m %s ms\n' "web[7]" "$n" "$((n * 7 % 40))"
  if [ $((n % 5)) = 0 ]; then printf '\033[33mwarning\033[0m: basket %s was slow\n' "$n" >&2; fi
  i=0; while [ $i -lt 9000 ]; do i=$((i + 1)); done
  sleep 0.7
done
"""
_QUEUE = r"""
echo "waiting for orders"
while true; do
  i=0; while [ $i -lt 40000 ]; do i=$((i + 1)); done
  echo "order taken"
  sleep 1.3
done
"""

PROCESSES = {
    "database": ProcessSpec(
        _sh('echo "LOG: database system is ready to accept connections"; sleep 5000'),
        _ENV,
        ready=Readiness(line="ready to accept"),
        scope="tree",
    ),
    "migrate": ProcessSpec(
        _sh("echo 12 migrations applied"), _ENV, kind="one-shot", after={"database": "ready"}
    ),
    "web": ProcessSpec(
        _sh(_REQUESTS),
        {**_ENV, "PORT": "8080", "LOG_LEVEL": "info"},
        user="web",
        cwd="/home/web",
        restart="always",
        after={"migrate": "succeeded"},
        ready=Readiness(line="listening"),
    ),
    "orders": ProcessSpec(_sh(_QUEUE), _ENV, restart="always", after={"database": "ready"}),
    "mailer": ProcessSpec(
        _sh('echo "cannot connect to mail.example.com:25: timed out" >&2; exit 75'),
        _ENV,
        restart="on-failure",
        backoff=Backoff(first=120, cap=600),
    ),
    "search": ProcessSpec(
        ("search-index", "--watch", "/srv/products"), _ENV, restart="always", enabled=False
    ),
    "thumbnails": ProcessSpec(
        _sh("echo cannot open /srv/pictures: no such file or directory >&2; exit 2"), _ENV
    ),
    "import": ProcessSpec(_sh("echo importing 4211 products; sleep 5000"), _ENV, kind="one-shot"),
    "newsletter": ProcessSpec(_sh("sleep 100"), _ENV, after={"import": "succeeded"}),
    "report": ProcessSpec(
        _sh("echo report written"), _ENV, kind="scheduled", schedule=Schedule(cron="0 6 * * MON-FRI")
    ),
}
