"""`Daytona()` as quickstarts have it: two variables in the environment, and no control plane."""

import asyncio
from collections.abc import Iterator

import pytest
from daytona import (
    AsyncDaytona,
    CodeRunParams,
    CreateSandboxFromImageParams,
    CreateSandboxFromSnapshotParams,
    CreateSnapshotParams,
    Daytona,
    DaytonaError,
    DaytonaNotFoundError,
    FileDownloadRequest,
    Image,
    ListSandboxesQuery,
    Resources,
    Sandbox,
    SandboxState,
    SessionExecuteRequest,
)
from daytona.common.pty import PtySize

from tests.daemon.daemon import Daemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that stops though the clients hold their event sockets open."""
    home = tmp_path_factory.mktemp("home")
    (home / ".zshrc").touch()  # zsh would greet a new user
    with Daemon.start(env={"HOME": str(home)}) as daemon:
        yield daemon
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.stderr()


@pytest.fixture(autouse=True)
def variables(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYTONA_API_URL", daemon.url)
    monkeypatch.setenv("DAYTONA_API_KEY", "anything")


@pytest.fixture
def daytona() -> Daytona:
    return Daytona()


def is_in(state: SandboxState, sandbox: Sandbox) -> bool:
    return sandbox.state == state


def test_quickstart(daytona: Daytona) -> None:
    sandbox = daytona.create()
    response = sandbox.process.code_run('print("Hello World from code!")')
    assert (response.exit_code, response.result) == (0, "Hello World from code!\n")
    sandbox.delete()


def test_a_command(daytona: Daytona) -> None:
    sandbox = daytona.create(CreateSandboxFromSnapshotParams(env_vars={"A": "1"}))
    script = "echo $A $B; pwd; exit 2"
    done = sandbox.process.exec(script, cwd="/usr", env={"B": "2"}, timeout=10)
    assert (done.exit_code, done.result) == (2, "1 2\n/usr\n")
    params = CodeRunParams(argv=["-h", "two words"], env={"FOO": "BAR"})
    code = "import os, sys; print(sys.argv[1:], os.environ['FOO'])"
    assert sandbox.process.code_run(code, params).result == "['-h', 'two words'] BAR\n"
    daytona.delete(sandbox)
    assert daytona.get("local").process.exec("echo $A.").result == ".\n"


def test_a_session(daytona: Daytona) -> None:
    process = daytona.create().process
    process.create_session("my-session")
    process.execute_session_command("my-session", SessionExecuteRequest(command="cd /tmp; F=me"))
    request = SessionExecuteRequest(command="pwd; echo $F; echo oops >&2")
    done = process.execute_session_command("my-session", request)
    assert (done.stdout, done.stderr, done.exit_code) == ("/tmp\nme\n", "oops\n", 0)
    request = SessionExecuteRequest(
        command="printf 'Name? '; read N; echo \"Hello, $N\"; exit 3", run_async=True
    )
    command = process.execute_session_command("my-session", request)
    process.send_session_command_input("my-session", command.cmd_id, "Alice")
    seen: list[str] = []
    asyncio.run(
        process.get_session_command_logs_async(
            "my-session", command.cmd_id, seen.append, seen.append
        )
    )
    assert "".join(seen).endswith("Hello, Alice\n")
    assert process.get_session_command("my-session", command.cmd_id).exit_code == 3
    process.delete_session("my-session")
    assert process.list_sessions() == []


def test_a_terminal(daytona: Daytona) -> None:
    process = daytona.create().process
    handle = process.create_pty_session("my-pty", pty_size=PtySize(cols=120, rows=30))
    assert handle.resize(PtySize(cols=210, rows=110)).cols == 210
    output = bytearray()
    handle.send_input("stty size; exit 3\n")
    assert handle.wait(on_data=output.extend).exit_code == 3
    assert b"110 210" in output


def test_an_interpreter(daytona: Daytona) -> None:
    interpreter = daytona.create().code_interpreter
    texts: list[str] = []
    done = interpreter.run_code(
        "x = 6; print(x * 7)", on_stdout=lambda each: texts.append(each.output)
    )
    assert ("".join(texts), done.stdout, done.error) == ("42\n", "42\n", None)
    failed = interpreter.run_code("raise ValueError('no')")
    assert failed.error is not None
    assert failed.error.name == "ValueError"
    context = interpreter.create_context(cwd="/tmp")
    there = interpreter.run_code("import os; print(os.getcwd())", context=context)
    assert there.stdout == "/tmp\n"
    interpreter.delete_context(context)


def test_lifecycle(daytona: Daytona) -> None:
    sandbox = daytona.create(
        CreateSandboxFromSnapshotParams(
            name="my-sandbox",
            language="python",
            snapshot="any",
            env_vars={"DEBUG": "true"},
            labels={"SOME_LABEL": "my-label"},
            auto_stop_interval=0,
            auto_archive_interval=60,
            auto_delete_interval=120,
            public=True,
        ),
        timeout=40,
    )
    assert (sandbox.id, sandbox.name, sandbox.env) == ("local", "my-sandbox", {"DEBUG": "true"})
    assert sandbox.labels["SOME_LABEL"] == "my-label"
    assert sandbox.auto_archive_interval == 60
    assert daytona.get("my-sandbox").id == daytona.get("local").id == "local"
    assert [each.name for each in daytona.list()] == ["my-sandbox"]
    for value, found in (("my-label", 1), ("other", 0)):
        query = ListSandboxesQuery(labels={"SOME_LABEL": value})
        assert len(list(daytona.list(query))) == found
    assert sandbox.set_labels({"project": "x"}) == {"project": "x"}
    sandbox.set_autostop_interval(15)
    sandbox.set_auto_delete_interval(-1)
    sandbox.refresh_activity()
    sandbox.refresh_data()
    assert (sandbox.auto_stop_interval, sandbox.auto_delete_interval) == (15, -1)
    daytona.stop(sandbox)
    assert is_in(SandboxState.STOPPED, sandbox)
    daytona.start(sandbox)
    assert sandbox.process.exec("echo alive").result == "alive\n"
    assert sandbox.get_preview_link(3000).url == "http://127.0.0.1:3000"
    with pytest.raises(DaytonaNotFoundError):
        daytona.get("no-such-sandbox")
    image = Image.debian_slim("3.12").pip_install(["numpy"])
    resources = Resources(cpu=2, memory=4, disk=8)
    params = CreateSandboxFromImageParams(image=image, resources=resources)
    assert daytona.create(params, timeout=0, on_snapshot_create_logs=print).name == "local"
    sandbox.delete(wait=True)
    assert is_in(SandboxState.DESTROYED, sandbox)
    assert list(daytona.list()) == []


def test_what_one_machine_does_not_have(daytona: Daytona) -> None:
    sandbox = daytona.create()
    for call in (
        lambda: daytona.volume.list(),
        lambda: daytona.volume.get("v", create=True),
        lambda: daytona.snapshot.list(),
        lambda: daytona.snapshot.create(CreateSnapshotParams(name="s", image="python:3.12")),
        lambda: sandbox.fs.upload_file(b"Hello", "file.txt"),
        lambda: sandbox.fs.download_file('a "file".txt'),
        lambda: sandbox.fs.list_files("."),
        lambda: sandbox.git.clone("https://github.com/example/repo", "repo"),
        lambda: sandbox.create_lsp_server("python", "project").start(),
        lambda: sandbox.archive(),
    ):
        with pytest.raises(DaytonaError, match="not supported by procd") as raised:
            call()
        assert raised.value.status_code == 501
    files = [FileDownloadRequest(source=name) for name in ("a", 'with "quotes"')]
    for file, result in zip(files, sandbox.fs.download_files(files), strict=True):
        assert result.source == file.source
        assert "not supported by procd" in str(result.error)


async def test_many_at_once() -> None:
    async with AsyncDaytona() as daytona:
        sandboxes = await asyncio.gather(*(daytona.create() for _ in range(10)))
        assert {sandbox.id for sandbox in sandboxes} == {"local"}
        commands = (each.process.exec(f"echo {n}") for n, each in enumerate(sandboxes))
        done = await asyncio.gather(*commands)
        assert [each.result for each in done] == [f"{n}\n" for n in range(10)]
        assert [each.name async for each in daytona.list()] == ["local"]
        await daytona.stop(sandboxes[0])
        await daytona.start(sandboxes[0])
        with pytest.raises(DaytonaError, match="not supported by procd"):
            await sandboxes[0].fs.download_file("a")
        await asyncio.gather(*(each.delete() for each in sandboxes))
