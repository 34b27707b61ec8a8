"""The redrive policies of queues that are there already: SQS keeps the one that a queue was made with.

Where ``max_deliveries`` was raised since, SQS would put messages among the dead letters before their last delivery.
"""

from __future__ import annotations

import logging

import msgspec

from noobly.clients.aws import AwsError, AwsJson, classify
from noobly.queueing import names
from noobly.queueing.providers._sqs_wire import ABSENT, Ask, Attributes, Nothing, SetAttributes

_NAME = "RedrivePolicy"
_TOLD = (
    "SQS may put messages of queue %r among the dead letters before their last delivery:"
    " the maxReceiveCount of its redrive policy should be %d at least, and stays as it is (%s)"
)

_log = logging.getLogger("noobly.queueing")


class Policy(msgspec.Struct, frozen=True, rename="camel"):
    """Where SQS puts what nobody deletes, and after how many receives."""

    dead_letter_target_arn: str
    max_receive_count: int


def written(policy: Policy) -> dict[str, str]:
    """Return a policy as an attribute of a queue."""
    return {_NAME: msgspec.json.encode(policy).decode()}


class Policies:
    """Looks at the policy of each queue once, and raises it or warns.

    Args:
        aws: SQS.
        receives: Receives after which SQS may put a message among the dead letters.
        change: Whether policies are raised; otherwise one that is too low is only told.
    """

    def __init__(self, aws: AwsJson, *, receives: int, change: bool) -> None:
        self._aws, self._receives, self._change = aws, receives, change
        self._seen: set[str] = set()

    async def check(self, queue: str, url: str) -> None:
        """See to it that SQS gives up no message of a queue before its last delivery; a queue without policy stays so.

        Raises:
            AwsError: SQS cannot answer now.
        """
        if queue in self._seen or names.is_dead(queue):
            return
        self._seen.add(queue)
        try:
            reason = await self._refusal(url)
        except BaseException:
            self._seen.discard(queue)
            raise
        if reason:
            _log.warning(_TOLD, queue, self._receives, reason)

    async def _refusal(self, url: str) -> str:
        """Return why a policy that is too low stays as it is; empty for one that is not, or no longer."""
        try:
            policy = await self._read(url)
            if policy is None or policy.max_receive_count >= self._receives:
                return ""
            if not self._change:
                return "create is false"
            await self._raise(url, policy)
        except AwsError as error:
            known = classify(error)
            if known is None or known.temporary:
                raise
            return "" if error.code in ABSENT else str(error)
        return ""

    async def _read(self, url: str) -> Policy | None:
        found = await self._aws.call("GetQueueAttributes", Ask(queue_url=url, attribute_names=[_NAME]), Attributes)
        if _NAME not in found.attributes:
            return None
        try:
            return msgspec.json.decode(found.attributes[_NAME], type=Policy, strict=False)
        except msgspec.DecodeError:
            return None

    async def _raise(self, url: str, policy: Policy) -> None:
        raised = msgspec.structs.replace(policy, max_receive_count=self._receives)
        await self._aws.call("SetQueueAttributes", SetAttributes(queue_url=url, attributes=written(raised)), Nothing)
