"""Root: the program of a worker's process, `python -m meshdns.worker`. What it does is `agent/worker.py`."""

from meshdns.daemon import small_reactor


def main() -> None:
    reactor = small_reactor()
    from meshdns.agent.worker import run  # which imports Twisted's TCP

    run(reactor)


if __name__ == "__main__":
    main()
