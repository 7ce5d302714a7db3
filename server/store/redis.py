"""The shared state in Redis, so that any number of server processes serve the same rooms.

| key | type | content |
|---|---|---|
| iw1:room:ROOM | hash | member id -> the Member as JSON |
| iw1:leases | sorted set | "ROOM:ID", scored by the end of its lease in Unix seconds |
| iw1:rooms | set | rooms that have members |
| iw1:locked | set | rooms that are locked |
| iw1:removed:ROOM | set | ids of members that a host has removed, until the room is empty |
| iw1:box:ROOM:ID | list | "e" (event) or "s" (signal), followed by the message's text |
| iw1:node:NODE | channel | "ROOM:ID": that member has mail, or its session ended |

Every change is one Lua script and therefore atomic. The scripts access keys whose names they read from other keys,
which Redis Cluster does not allow: use one primary, with replicas and Sentinel if needed. Mailboxes expire by
themselves; everything else is removed when leases expire. Redis need not persist anything: after a loss of all state
each process adds its members again at their next lease renewal.
"""

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Awaitable
from dataclasses import asdict
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from iwcodec.server.logs import emit
from iwcodec.server.messages import MAILBOX, Locked, encode
from iwcodec.server.store.base import Joined, Member, Posted, Refusal, Renewed, StoreError, Wake

TIMEOUT_S: Final = 3.0
"""Timeout of one command, in seconds. Redis normally answers within a millisecond."""
CONNECTIONS: Final = 16
"""Connections to Redis of one process. Further commands wait for a free one."""
PAUSE_S: Final = 0.5
"""Pause in seconds between attempts to subscribe again."""
SWEEP_BATCH: Final = 200
"""Expired leases removed by one script call, which blocks Redis while it runs."""

_COMMON: Final = """
local function deliver(room, id, raw, kind, text)
  local box = 'iw1:box:' .. room .. ':' .. id
  redis.call('RPUSH', box, kind .. text)
  redis.call('LTRIM', box, -MAILBOX, -1)
  redis.call('EXPIRE', box, 600)
  redis.call('PUBLISH', 'iw1:node:' .. cjson.decode(raw).node, room .. ':' .. id)
end
local function announce(room, text)
  local all = redis.call('HGETALL', 'iw1:room:' .. room)
  for i = 1, #all, 2 do deliver(room, all[i], all[i + 1], 'e', text) end
end
local function seat(room, id, raw, expires)
  local record = cjson.decode(raw)
  announce(room, cjson.encode({type = 'peer-joined', peer = {id = id, name = record.name}}))
  redis.call('HSET', 'iw1:room:' .. room, id, raw)
  redis.call('ZADD', 'iw1:leases', expires, room .. ':' .. id)
  redis.call('SADD', 'iw1:rooms', room)
end
local function remove(room, id, reason)
  local key = 'iw1:room:' .. room
  local raw = redis.call('HGET', key, id)
  redis.call('HDEL', key, id)
  redis.call('ZREM', 'iw1:leases', room .. ':' .. id)
  redis.call('DEL', 'iw1:box:' .. room .. ':' .. id)
  if redis.call('EXISTS', key) == 0 then
    redis.call('SREM', 'iw1:rooms', room)
    redis.call('SREM', 'iw1:locked', room)
    redis.call('DEL', 'iw1:removed:' .. room)
  end
  announce(room, cjson.encode({type = 'peer-left', id = id, reason = reason}))
  if raw then redis.call('PUBLISH', 'iw1:node:' .. cjson.decode(raw).node, room .. ':' .. id) end
end
""".replace("MAILBOX", str(MAILBOX))

# room, record, resume id, resume hash, room size, rooms, expires, host -> {outcome, locked, record, others...}
_JOIN: Final = """
local room, raw, resume_id, resume_hash = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key = 'iw1:room:' .. room
local record = cjson.decode(raw)
local outcome = 'joined'
local locked = redis.call('SISMEMBER', 'iw1:locked', room)
local old = resume_id ~= '' and redis.call('HGET', key, resume_id)
if old and cjson.decode(old).resume == resume_hash then
  outcome = 'resumed'
  local kept = cjson.decode(old)
  local old_node = kept.node
  kept.session, kept.node = record.session, record.node
  record, raw = kept, cjson.encode(kept)
  redis.call('HSET', key, record.id, raw)
  redis.call('ZADD', 'iw1:leases', ARGV[7], room .. ':' .. record.id)
  local box = 'iw1:box:' .. room .. ':' .. record.id
  for _, entry in ipairs(redis.call('LRANGE', box, 0, -1)) do
    if string.sub(entry, 1, 1) == 'e' then redis.call('LREM', box, 1, entry) end
  end
  redis.call('PUBLISH', 'iw1:node:' .. old_node, room .. ':' .. record.id)
else
  local barred = locked == 1 or redis.call('SISMEMBER', 'iw1:removed:' .. room, record.id) == 1
  if barred and ARGV[8] ~= '1' then return {'room locked'} end
  local people = redis.call('HLEN', key)
  if people >= tonumber(ARGV[5]) then return {'room full'} end
  if people == 0 and redis.call('SCARD', 'iw1:rooms') >= tonumber(ARGV[6]) then return {'server full'} end
  seat(room, record.id, raw, ARGV[7])
end
local answer = {outcome, tostring(locked), raw}
local all = redis.call('HGETALL', key)
for i = 1, #all, 2 do
  if all[i] ~= record.id then answer[#answer + 1] = all[i + 1] end
end
return answer
"""

# room, id, session, record, expires, restore
_RENEW: Final = """
local room, id = ARGV[1], ARGV[2]
local raw = redis.call('HGET', 'iw1:room:' .. room, id)
if not raw then
  if redis.call('SISMEMBER', 'iw1:removed:' .. room, id) == 1 then return 'removed' end
  if ARGV[6] ~= '1' then return 'lost' end
  seat(room, id, ARGV[4], ARGV[5])
  return 'renewed'
end
if cjson.decode(raw).session ~= ARGV[3] then return 'replaced' end
redis.call('ZADD', 'iw1:leases', ARGV[5], room .. ':' .. id)
return 'renewed'
"""

# room, on, message
_LOCK: Final = """
if redis.call('EXISTS', 'iw1:room:' .. ARGV[1]) == 0 then return 0 end
redis.call(ARGV[2] == '1' and 'SADD' or 'SREM', 'iw1:locked', ARGV[1])
announce(ARGV[1], ARGV[3])
return 0
"""

# room, id -> whether it was there
_REMOVE: Final = """
if redis.call('HEXISTS', 'iw1:room:' .. ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('SADD', 'iw1:removed:' .. ARGV[1], ARGV[2])
remove(ARGV[1], ARGV[2], 'left')
return 1
"""

# room, id, session
_LEAVE: Final = """
local raw = redis.call('HGET', 'iw1:room:' .. ARGV[1], ARGV[2])
if raw and cjson.decode(raw).session == ARGV[3] then remove(ARGV[1], ARGV[2], 'left') end
return 0
"""

# room, id, text, mailbox
_POST: Final = """
local room, id = ARGV[1], ARGV[2]
local raw = redis.call('HGET', 'iw1:room:' .. room, id)
if not raw then return 'no-peer' end
if redis.call('LLEN', 'iw1:box:' .. room .. ':' .. id) >= tonumber(ARGV[4]) then return 'peer-busy' end
deliver(room, id, raw, 's', ARGV[3])
return 'sent'
"""

# room, id, session -> the mailbox, or nil
_FETCH: Final = """
local raw = redis.call('HGET', 'iw1:room:' .. ARGV[1], ARGV[2])
if not raw or cjson.decode(raw).session ~= ARGV[3] then return false end
local box = 'iw1:box:' .. ARGV[1] .. ':' .. ARGV[2]
local entries = redis.call('LRANGE', box, 0, -1)
redis.call('DEL', box)
return entries
"""

# now, batch size
_SWEEP: Final = """
local lapsed = redis.call('ZRANGEBYSCORE', 'iw1:leases', '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, entry in ipairs(lapsed) do
  local room, id = string.match(entry, '^([^:]+):(.+)$')
  remove(room, id, 'lost')
end
return #lapsed
"""


class RedisStore:
    """See `iwcodec.server.store.base.Store`."""

    kind = "redis"

    def __init__(self, url: str) -> None:
        """`url`: redis://[[user]:password@]host[:port][/db], rediss:// (TLS) or unix://. Raises ValueError for any
        other."""
        self.node = secrets.token_hex(8)
        # Retry once and immediately, for a pooled connection that was closed while idle.
        self.redis = _client(url, retries=1)
        # Do not retry: a silently renewed subscription would hide that messages were missed.
        self.subscriber = _client(url, retries=0)
        self.scripts = {
            name: self.redis.register_script(_COMMON + body)
            for name, body in {
                "join": _JOIN,
                "renew": _RENEW,
                "lock": _LOCK,
                "remove": _REMOVE,
                "leave": _LEAVE,
                "post": _POST,
                "fetch": _FETCH,
                "sweep": _SWEEP,
            }.items()
        }
        self.listener: asyncio.Task[None] | None = None

    async def open(self, wake: Wake) -> None:
        await self.ping()
        ready = asyncio.Event()
        self.listener = asyncio.create_task(self._listen(wake, ready))
        try:
            await asyncio.wait_for(ready.wait(), 2 * TIMEOUT_S)
        except TimeoutError:
            raise StoreError("Redis does not accept a subscription.") from None

    async def close(self) -> None:
        if self.listener:
            self.listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.listener
        await self.subscriber.aclose()
        await self.redis.aclose()

    async def ping(self) -> None:
        await _answer(self.redis.ping())

    async def join(
        self,
        room: str,
        newcomer: Member,
        resume: tuple[str, str] | None,
        limits: tuple[int, int],
        expires: float,
        host: bool = False,
    ) -> Joined | Refusal:
        arguments = (room, _record(newcomer), *(resume or ("", "")), *limits, expires, int(host))
        outcome, *answer = await self._run("join", *arguments)
        if outcome == "room full":
            return Refusal.ROOM_FULL
        if outcome == "server full":
            return Refusal.SERVER_FULL
        if outcome == "room locked":
            return Refusal.ROOM_LOCKED
        locked, *records = answer
        member, *peers = (_member(raw) for raw in records)
        return Joined(member, _oldest_first(peers), outcome == "resumed", locked == "1")

    async def renew(self, room: str, member: Member, expires: float, restore: bool) -> Renewed:
        arguments = (room, member.id, member.session, _record(member), expires, int(restore))
        return Renewed(await self._run("renew", *arguments))

    async def lock(self, room: str, on: bool) -> None:
        await self._run("lock", room, int(on), encode(Locked(on=on)))

    async def remove(self, room: str, member: str) -> bool:
        return bool(await self._run("remove", room, member))

    async def leave(self, room: str, member: Member) -> None:
        await self._run("leave", room, member.id, member.session)

    async def post(self, room: str, to: str, text: str) -> Posted:
        return Posted(await self._run("post", room, to, text, MAILBOX))

    async def fetch(self, room: str, member: Member) -> list[str] | None:
        entries = await self._run("fetch", room, member.id, member.session)
        return None if entries is None else [entry[1:] for entry in entries]

    async def members(self, room: str, now: float) -> list[Member]:
        records = await _answer(self.redis.hgetall(f"iw1:room:{room}"))
        if not records:
            return []
        leases = await _answer(self.redis.zmscore("iw1:leases", [f"{room}:{member}" for member in records]))
        present = zip(records.values(), leases, strict=True)
        return _oldest_first([_member(raw) for raw, expires in present if expires is not None and expires > now])

    async def sweep(self, now: float) -> int:
        return int(await self._run("sweep", now, SWEEP_BATCH))

    async def totals(self) -> tuple[int, int]:
        return int(await _answer(self.redis.scard("iw1:rooms"))), int(await _answer(self.redis.zcard("iw1:leases")))

    async def _run(self, name: str, *arguments: str | float) -> Any:
        return await _answer(self.scripts[name](args=list(arguments)))

    async def _listen(self, wake: Wake, ready: asyncio.Event) -> None:
        """Keep this process subscribed to its channel until cancelled."""
        while True:
            try:
                async with self.subscriber.pubsub() as channel:
                    await channel.subscribe(f"iw1:node:{self.node}")
                    while True:
                        # The timeout lets redis-py check now and then whether the connection is alive.
                        message = await channel.get_message(timeout=TIMEOUT_S)
                        if message is None:
                            continue
                        # Wake-ups published before the subscription began are lost: fetch every mailbox then.
                        is_mail = message["type"] == "message"
                        room, _, member = message["data"].partition(":") if is_mail else ("", "", "")
                        wake(room, member)
                        ready.set()
            except (RedisError, OSError) as error:
                emit("redis-lost", logging.WARNING, error=type(error).__name__)
                await asyncio.sleep(PAUSE_S)


def _client(url: str, retries: int) -> Redis:
    # The plain pool raises an error, rather than waits, when all its connections are busy.
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=None,
        decode_responses=True,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        health_check_interval=10,
        retry=Retry(NoBackoff(), retries),
    )
    return Redis.from_pool(pool)


async def _answer(command: Awaitable[Any]) -> Any:
    """Return the answer of Redis. Raises StoreError if there is none."""
    try:
        return await command
    except (RedisError, OSError) as error:
        raise StoreError(f"Redis does not answer ({type(error).__name__}).") from error


def _record(member: Member) -> str:
    return json.dumps(asdict(member), separators=(",", ":"), ensure_ascii=False)


def _member(raw: str) -> Member:
    return Member(**json.loads(raw))


def _oldest_first(members: list[Member]) -> list[Member]:
    return sorted(members, key=lambda member: (member.joined, member.id))
