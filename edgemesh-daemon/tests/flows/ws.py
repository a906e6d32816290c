#!/usr/bin/python3
"""A WebSocket server that echoes, and a client that sends a frame a second and prints what comes back.

ws.py serve IP PORT        ws.py call URL FRAMES
"""

import asyncio
import sys

import websockets


async def echo(socket, path):
    if path != "/echo":
        return
    async for frame in socket:
        await socket.send(frame)


async def serve(ip, port):
    async with websockets.serve(echo, ip, int(port)):
        await asyncio.Future()


async def call(url, frames):
    async with websockets.connect(url) as socket:
        for number in range(int(frames)):
            if number:
                await asyncio.sleep(1)
            await socket.send(f"frame {number}")
            print(await asyncio.wait_for(socket.recv(), 0.9), flush=True)


asyncio.run({"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:]))
