import socket

import pytest

from cohort.errors import CampaignError
from flows.mlflow_ui import free_port


def test_a_port_that_is_taken_is_replaced() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) not in {0, port}
    assert free_port("127.0.0.1", port) == port


def test_a_host_that_is_not_here() -> None:
    with pytest.raises(CampaignError, match=r"No port is free on 192\.0\.2\.1; name another address"):
        free_port("192.0.2.1", 5000)
