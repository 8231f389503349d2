"""Drives the server with published clients: the Python SDK over stdio and HTTP, LangChain's MCP
adapters, and the MCP client of the OpenAI Agents SDK."""
import asyncio
import json
import os
import subprocess
import sys

from agents.mcp import MCPServerStdio
from langchain_mcp_adapters.client import MultiServerMCPClient
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client

PROGRAM, OUT = sys.argv[1:3]
TOKEN = "0123456789abcdef0123456789abcdef"


async def whole_job(session):
    await session.initialize()
    tools = {tool.name: tool for tool in (await session.list_tools()).tools}
    assert {"sandbox_create", "run", "file_edit", "job_read", "export"} <= set(tools), tools
    assert tools["file_read"].annotations.readOnlyHint is True
    assert tools["run"].outputSchema["properties"]["ran"]

    async def call(name, **arguments):
        # The SDK checks the result against the output schema.
        result = await session.call_tool(name, arguments)
        assert not result.isError, result
        return result.structuredContent

    sandbox = (await call("sandbox_create"))["sandbox_id"]
    files = [{"path": "main.py", "content": "print(6 * 7)\n"}]
    await call("file_write", sandbox_id=sandbox, files=files)
    ran = await call("run", sandbox_id=sandbox, argv=["python3", "main.py"])
    assert (ran["ran"], ran["exit_code"], ran["stdout"]["head"]) == ("yes", 0, "42\n"), ran
    failed = await session.call_tool("file_read", {"sandbox_id": sandbox, "path": "missing"})
    assert failed.isError and "missing" in failed.content[0].text, failed

    told = []

    async def progress(done, total, message):
        told.append(done)

    slow = {"sandbox_id": sandbox, "script": "sleep 2.5"}
    await session.call_tool("run", slow, progress_callback=progress)
    assert len(told) >= 2, told
    # A client that gives up: what it ran is killed, and the server serves on.
    hang = {"sandbox_id": sandbox, "script": "echo $$ > pid; exec sleep 600"}
    try:
        await asyncio.wait_for(session.call_tool("run", hang), 2)
        raise AssertionError("the call came back")
    except asyncio.TimeoutError:
        pass
    await call("sandbox_close", sandbox_id=sandbox)


async def python_stdio():
    parameters = StdioServerParameters(command=PROGRAM, args=["mcp", "--export-root", OUT])
    async with stdio_client(parameters) as (read, write):
        async with ClientSession(read, write) as session:
            await whole_job(session)


async def python_http():
    token = os.path.join(OUT, "token")
    with open(token, "w") as file:
        file.write(TOKEN)
    server = subprocess.Popen(
        [PROGRAM, "mcp", "--listen", "127.0.0.1:0", "--token-file", token],
        stderr=subprocess.PIPE, text=True,
    )
    try:
        url = server.stderr.readline().split()[-1]
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with streamablehttp_client(url, headers=headers) as (read, write, _):
            async with ClientSession(read, write) as session:
                await whole_job(session)
    finally:
        server.kill()
        server.wait()


async def langchain():
    client = MultiServerMCPClient(
        {"sandbox": {"transport": "stdio", "command": PROGRAM, "args": ["mcp"]}}
    )
    async with client.session("sandbox") as session:
        from langchain_mcp_adapters.tools import load_mcp_tools

        tools = {tool.name: tool for tool in await load_mcp_tools(session)}
        made = await tools["sandbox_create"].ainvoke({"name": "lc"})
        assert "lc" in str(made), made
        ran = await tools["run"].ainvoke({"sandbox_id": "lc", "argv": ["echo", "hello"]})
        assert "hello" in str(ran), ran


async def openai_agents():
    parameters = {"command": PROGRAM, "args": ["mcp"]}
    # Five seconds by default: not enough for a start on a busy machine.
    async with MCPServerStdio(parameters, client_session_timeout_seconds=60) as server:
        names = [tool.name for tool in await server.list_tools()]
        assert "run" in names, names
        await server.call_tool("sandbox_create", {"name": "oa"})
        result = await server.call_tool("run", {"sandbox_id": "oa", "script": "echo $((40 + 2))"})
        text = result.content[0].text
        assert json.loads(text)["stdout"]["head"] == "42\n", text


async def main():
    for client in (python_stdio, python_http, langchain, openai_agents):
        await asyncio.wait_for(client(), 60)
        print("ok:", client.__name__, flush=True)


asyncio.run(main())
