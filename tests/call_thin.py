import asyncio, sys, time, threading
sys.path.insert(0,'tests')
import uvicorn, cv2, numpy as np, logging
from iwcodec.server.app import create_app
from iwcodec.server.hub import Hub, Settings
from iwcodec.server.rooms import MemoryStore
from iwcodec.client.signalling import Signalling
from iwcodec.client.call import Call
from iwcodec.client.capture import *
from iwcodec.client.audio import Microphone
from iwcodec.client.playout import Speaker
from iwcodec.media import sample_clip
from call_double import *
import socket

async def main():
    app=create_app(Hub(MemoryStore(), Settings(b"x"*32)))
    s=socket.create_server(("127.0.0.1",0)); port=s.getsockname()[1]
    server=uvicorn.Server(uvicorn.Config(app,log_config=None,ws_per_message_deflate=False,lifespan="on"))
    t=asyncio.create_task(server.serve(sockets=[s]))
    await asyncio.sleep(.5)
    calls=[]
    clip=Clip(sample_clip())
    for name in ("Ada","Bob","Cyd")[:2]:
        feed=DoubleFeed(); mic=Microphone(); sp=Speaker(); sp.start()
        c=Call(Signalling(f"http://127.0.0.1:{port}/r/blue",name),feed,lambda pc,f=feed:DoubleLink(pc,f),make_connection,mic,sp)
        pics=Pictures(clip.frames(),LiveCrop(256,24))
        async def pump(pics=pics,feed=feed):
            async for p in pics: await feed.push(p.picture,p.captured_s)
        async def tone(mic=mic):
            n=0; t0=time.monotonic()
            while True:
                await asyncio.sleep(max(0,t0+(n+1)*.02-time.monotonic()))
                mic.push((3000*np.sin(np.arange(n*960,n*960+960)*.05)).astype(np.int16), t0+n*.02); n+=1
        calls.append((c,asyncio.create_task(c.run()),asyncio.create_task(pump()),asyncio.create_task(tone())))
    for i in range(5):
        await asyncio.sleep(1)
        for c,*_ in calls:
            print(c.state, [(p.name,p.state,p.peer.link.received if p.peer.link else 0, p.playout.counts, p.playout.wait_s, p.peer.refused) for p in c.participants.values()])
    await calls[0][0].leave()
    await asyncio.sleep(1)
    print(calls[1][0].state, calls[1][0].notices)
    await calls[1][0].leave()
    for c in calls: 
        await c[1]; c[2].cancel(); c[3].cancel()
    server.should_exit=True; await t

asyncio.run(main())
