"""Short authentication string: three words that both ends of a link show if no one sits between them.

The server relays the fingerprints of the DTLS certificates, so a hostile one could put its own in their place and
decrypt everything. It cannot make both ends show the same words, which people compare by voice. The words are a hash of
both certificates and of a random number of each end. Each end commits to its number before it learns the other one
(as in ZRTP, RFC 6189, section 4.4), so that nobody in the middle can search for certificates or numbers that lead to
the same words: a guess succeeds once in 2^24 times.
"""

import hashlib
import hmac
import secrets

from iwcodec.client.link.messages import Commitment, Nonce
from iwcodec.codec.token_bucket import TokenBucket

NONCE_BYTES = 16
EXCHANGES_PER_S, EXCHANGE_BURST = 1 / 60, 5.0
"""Exchanges that a peer may begin per second, and at once. Each one is a guess for somebody in the middle."""
_LABEL = b"iwcodec short authentication string 1"


class Verification:
    """The exchange with one peer. It is repeated on a connection with other certificates, which leads to other words.
    Pure: time is passed in, and the messages to be sent are returned."""

    def __init__(self) -> None:
        self.words: str | None = None
        """The three words; None until both numbers are known."""
        self._certificates: tuple[bytes, bytes] | None = None
        """Fingerprints of our certificate and of the peer's."""
        self._nonce: bytes | None = None
        """Our random number in the present exchange; None before the first."""
        self._commitment: bytes | None = None
        """The peer's commitment in the present exchange."""
        self._exchanges = TokenBucket(EXCHANGES_PER_S, EXCHANGE_BURST)

    def connected(self, certificates: tuple[bytes, bytes]) -> list[Commitment | Nonce]:
        """A connection with these certificates (fingerprints of ours and of the peer's) is up."""
        if certificates == self._certificates and self.words is not None:
            return []
        self._certificates = certificates
        return [self._begin()]

    def receive(self, message: Commitment | Nonce, now_s: float) -> list[Commitment | Nonce]:
        """Take a message of the peer. Messages out of turn have no effect."""
        if self._certificates is None:
            return []
        if isinstance(message, Nonce):
            self._settle(message.nonce)
            return []
        answer: list[Commitment | Nonce] = []
        if self._nonce is None or self._commitment is not None:  # the peer begins another exchange
            if not self._exchanges.take(now_s):
                return []
            answer.append(self._begin())
        self._commitment = message.digest
        assert self._nonce is not None
        return [*answer, Nonce(self._nonce)]

    def _begin(self) -> Commitment:
        self._nonce, self._commitment, self.words = secrets.token_bytes(NONCE_BYTES), None, None
        return Commitment(hashlib.sha256(self._nonce).digest())

    def _settle(self, nonce: bytes) -> None:
        if self._commitment is None or self._nonce is None or self._certificates is None or self.words is not None:
            return
        if hmac.compare_digest(hashlib.sha256(nonce).digest(), self._commitment):
            ours, theirs = self._certificates
            self.words = words_of((ours, self._nonce), (theirs, nonce))


def words_of(*ends: tuple[bytes, bytes]) -> str:
    """The words for two ends (fingerprint of the certificate, random number), in any order."""
    parts = [part for end in sorted(ends) for part in end]
    digest = hashlib.sha256(b"".join(len(part).to_bytes(2, "big") + part for part in (_LABEL, *parts))).digest()
    return " ".join(WORDS[byte] for byte in digest[:3])


_LIST = """
acorn actor album alley amber angel ankle apple apron arena arrow aspen atlas attic audio autumn bacon badge
bagel bamboo banana banjo barrel basil basket beach beaver bench berry bishop blanket bonus bottle boulder
bracket branch bread breeze brick bridge bronze bubble bucket buffalo butter button cabin cactus camel camera
canal candle canoe canvas carbon cargo carpet carrot castle cattle cedar cement cherry chess chimney cinema
circus citrus clover cobra coconut coffee comet copper coral cotton cousin coyote cradle crayon cricket
crystal cupboard curtain cymbal daisy dancer daylight denim desert diamond dinner doctor dolphin donkey dragon
drawer drummer eagle easel echo eclipse elbow elephant emerald engine fabric falcon feather fennel ferry
fiddle finger flamingo flannel flute forest fossil fountain galaxy garden garlic gazelle geyser ginger giraffe
glacier goblet gospel granite grape gravel guitar hammer hamster harbor harvest hazel helmet heron hockey
honey horizon hornet hotel iceberg igloo insect island ivory jacket jaguar jasmine jelly jigsaw jungle kayak
kettle kitchen kiwi ladder lagoon lantern laptop lavender lemon leopard lettuce library lilac lizard lobster
locket magnet mango maple marble market meadow melon mirror mitten monkey mosaic mountain muffin museum
mustard napkin nectar needle nickel noodle nutmeg oasis ocean octopus olive onion orbit orchid otter oven
oyster paddle palace panda papaya parrot pebble pelican pencil pepper piano pigeon pillow pirate planet pocket
pony poppy potato prairie puzzle pyramid quartz rabbit raccoon radar rainbow raven ribbon river rocket saddle
saffron salmon sandal saturn scarf shadow silver spider sponge spruce sunset table tango teapot tiger timber
tomato tulip turtle velvet violin
"""
WORDS = tuple(_LIST.split())
"""256 words that are easy to tell apart by ear, one for each byte."""
