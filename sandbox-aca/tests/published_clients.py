"""Clients of dynamic sessions that others wrote, unchanged, against the emulator."""

import asyncio
import io
import json
import os
import time

import requests
from autogen_core import CancellationToken
from autogen_core.code_executor import CodeBlock
from autogen_ext.code_executors.azure import ACADynamicSessionsCodeExecutor
from azure.identity import ClientSecretCredential
from langchain_azure_dynamic_sessions import SessionsPythonREPLTool
from langchain_azure_dynamic_sessions.tools.sessions import SessionsBashTool
from llama_index.tools.azure_code_interpreter import AzureCodeInterpreterToolSpec
from semantic_kernel.core_plugins.sessions_python_tool.sessions_python_plugin import SessionsPythonTool
from semantic_kernel.exceptions.function_exceptions import FunctionExecutionException

# A value that shows itself as an image, as figures do.
SHOWN = "class Shown:\n    def _repr_png_(self): return b'png'\nShown()"

GROUP = "subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/emulator"


def told(name, pool):
    said = json.loads(os.environ[name])
    return f"{said['endpoint']}/{GROUP}/sessionPools/{pool}", said["token"]


def ended(endpoint, token, identifier):
    """Whether the pool knows the session no more, within a while."""
    url = f"{endpoint}/session?api-version=2025-10-02-preview&identifier={identifier}"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if requests.get(url, headers={"Authorization": f"Bearer {token}"}).status_code == 404:
            return True
        time.sleep(0.05)
    return False


def langchain_python():
    endpoint, token = told("PLAIN_EMULATOR", "python")
    tool = SessionsPythonREPLTool(pool_management_endpoint=endpoint, access_token_provider=lambda: token)
    assert json.loads(tool.invoke("6 * 7")) == {"result": 42, "stdout": "", "stderr": ""}
    tool.invoke("x = 5")
    answer = json.loads(tool.invoke("print('out', x)"))
    assert answer["stdout"] == "out 5\n", answer
    answer = json.loads(tool.invoke("1 / 0"))
    assert "ZeroDivisionError" in answer["stderr"], answer
    put = tool.upload_file(data=io.BytesIO(b"\x00\xffbytes"), remote_file_path="data.bin")
    assert (put.filename, put.size_in_bytes) == ("data.bin", 7), put
    assert tool.download_file(remote_file_path="data.bin").read() == b"\x00\xffbytes"
    assert [file.full_path for file in tool.list_files()] == ["/mnt/data/data.bin"]
    assert json.loads(tool.invoke("len(open('/mnt/data/data.bin', 'rb').read())"))["result"] == 7
    shown = tool.execute(SHOWN)["result"]
    assert shown == {"type": "image", "format": "png", "base64_data": "cG5n"}, shown
    other = SessionsPythonREPLTool(pool_management_endpoint=endpoint, access_token_provider=lambda: token)
    assert other.list_files() == [], "another session's files"
    identifier = tool.session_id
    tool.close()
    assert ended(endpoint, token, identifier)
    bad = SessionsPythonREPLTool(pool_management_endpoint=endpoint, access_token_provider=lambda: "no.such.token")
    try:
        bad.invoke("1")
        raise AssertionError("a bad token was taken")
    except requests.HTTPError as error:
        assert error.response.status_code == 401


def langchain_bash():
    endpoint, token = told("PLAIN_EMULATOR", "shell")
    tool = SessionsBashTool(pool_management_endpoint=endpoint, access_token_provider=lambda: token)
    answer = json.loads(tool.invoke("pwd; echo err >&2"))
    assert answer == {"stdout": "/mnt/data\n", "stderr": "err\n", "exitCode": 0}, answer
    assert json.loads(tool.invoke("exit 7"))["exitCode"] == 7
    put = tool.upload_file(data=io.BytesIO(b"text\n"), remote_file_path="a.txt")
    assert (put.filename, put.size_in_bytes) == ("a.txt", 5), put
    assert json.loads(tool.invoke("cat a.txt"))["stdout"] == "text\n"
    assert tool.download_file(remote_file_path="a.txt").read() == b"text\n"
    assert [file.filename for file in tool.list_files()] == ["a.txt"]
    identifier = tool.session_id
    tool.close()
    assert ended(endpoint, token, identifier)


async def semantic_kernel(work):
    endpoint, token = told("TLS_EMULATOR", "python")
    tool = SessionsPythonTool(
        pool_management_endpoint=endpoint,
        auth_callback=lambda: token,
        enable_dangerous_file_uploads=True,
        allowed_upload_directories=[work],
    )
    tool.http_client.timeout = 60
    with open(f"{work}/up.txt", "w") as file:
        file.write("up")
    put = await tool.upload_file(local_file_path=f"{work}/up.txt")
    assert (put.full_path, put.size_in_bytes) == ("/mnt/data/up.txt", 2), put
    said = await tool.execute_code("y = open('/mnt/data/up.txt').read()\nprint(y)\ny * 2")
    assert said == "Status:\nSuccess\nResult:\nupup\nStdout:\nup\n\nStderr:\n", said
    assert "ZeroDivisionError" in await tool.execute_code("1 / 0")
    assert "Stdout:\nup\n" in await tool.execute_code("print(y)")
    got = await tool.download_file(remote_file_name="up.txt")
    assert got.read() == b"up"
    assert [file.filename for file in await tool.list_files()] == ["up.txt"]
    # After an execute it sends the form as application/json, without a boundary.
    with open(f"{work}/late.txt", "w") as file:
        file.write("late")
    try:
        late = await tool.upload_file(local_file_path=f"{work}/late.txt")
        assert late.size_in_bytes == 4, late
    except FunctionExecutionException as error:
        assert "status code 4" in str(error), error


def of_entra():
    """A credential whose tokens MSAL gets where the emulator's tenant says they are."""
    return ClientSecretCredential(
        "tenant",
        "client",
        "secret",
        authority=json.loads(os.environ["TLS_EMULATOR"])["endpoint"],
        disable_instance_discovery=True,
    )


async def autogen(work):
    endpoint, token = told("TLS_EMULATOR", "python")
    # It asks for the session's packages in a way that needs setuptools, which Debian's Python is without.
    packages = "import sys, types; sys.modules['pkg_resources'] = types.SimpleNamespace(working_set=[])"
    body = {"properties": {"codeInputType": "inline", "executionType": "synchronous", "code": packages}}
    url = f"{endpoint}/code/execute?api-version=2024-02-02-preview&identifier=of-autogen"
    requests.post(url, headers={"Authorization": f"Bearer {token}"}, json=body).raise_for_status()
    tool = ACADynamicSessionsCodeExecutor(
        pool_management_endpoint=endpoint, credential=of_entra(), work_dir=work, session_id="of-autogen"
    )
    await tool.start()
    no_end = CancellationToken()

    async def run(code):
        return await tool.execute_code_blocks([CodeBlock(code=code, language="python")], no_end)

    ran = await run("z = 20\nprint('out')\nz * 2")
    assert (ran.exit_code, ran.output) == (0, "out\n40"), ran
    ran = await run("z / 0")
    assert ran.exit_code == 1 and "ZeroDivisionError" in ran.output, ran
    with open(f"{work}/of-autogen.txt", "w") as file:
        file.write("up")
    await tool.upload_files(["of-autogen.txt"], no_end)
    assert await tool.get_file_list(no_end) == ["of-autogen.txt"]
    ran = await run("open('of-autogen.txt', 'a').write('!')")
    assert ran.exit_code == 0, ran
    await tool.download_files(["of-autogen.txt"], no_end)
    with open(f"{work}/of-autogen.txt") as file:
        assert file.read() == "up!"
    await tool.stop()


def llama_index(work):
    endpoint, _ = told("TLS_EMULATOR", "python")
    tool = AzureCodeInterpreterToolSpec(pool_management_endpoint=endpoint, local_save_path=work)
    credential = of_entra()
    tool.access_token_provider = lambda: credential.get_token("https://dynamicsessions.io/.default").token
    ran = tool.code_interpreter("```python\nw = 3\nprint('out')\nw * 2\n```")["properties"]
    assert (ran["status"], ran["result"], ran["stdout"]) == ("Success", 6, "out\n"), ran
    assert "NameError" in tool.code_interpreter("missing")["properties"]["stderr"]
    with open(f"{work}/of-llama.txt", "w") as file:
        file.write("up")
    put = tool.upload_file(local_file_path=f"{work}/of-llama.txt")
    assert [(file.filename, file.size_in_bytes) for file in put] == [("of-llama.txt", 2)], put
    assert [file.filename for file in tool.list_files()] == ["of-llama.txt"]
    assert tool.download_file_to_local("of-llama.txt").read() == b"up"
    shown = tool.code_interpreter(SHOWN)["properties"]["result"]
    assert shown["saved_to_local_path"] is True, shown


if __name__ == "__main__":
    langchain_python()
    print("langchain-azure-dynamic-sessions, Python: ok")
    langchain_bash()
    print("langchain-azure-dynamic-sessions, Bash: ok")
    asyncio.run(semantic_kernel(os.getcwd()))
    print("semantic-kernel, sessions tool: ok")
    asyncio.run(autogen(os.getcwd()))
    print("autogen-ext, Dynamic Sessions, with a token of azure-identity: ok")
    llama_index(os.getcwd())
    print("llama-index-tools-azure-code-interpreter, with a token of azure-identity: ok")
