"""What a Kafka client's error means to whoever runs the worker."""

from __future__ import annotations

import pytest
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError

from stream.errors import BrokerError, LossError
from stream.fatal import meaning


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KafkaConnectionError("Unable to bootstrap from [x]"), "no Kafka broker answers"),
        (TopicAuthorizationFailedError("clicks"), "does not allow"),
    ],
)
def test_a_broker_that_is_away_or_refuses_is_a_broker_error(error: Exception, said: str) -> None:
    meant = meaning(error)
    assert isinstance(meant, BrokerError)
    assert said in str(meant)


@pytest.mark.parametrize("error", [LossError("gone"), KeyError(3), KeyboardInterrupt()])
def test_every_other_error_is_itself(error: BaseException) -> None:
    assert meaning(error) is error
