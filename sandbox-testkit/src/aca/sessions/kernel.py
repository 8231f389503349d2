"""The kernel of a Python session: runs one piece of code after the other, keeps its globals.

A line of JSON comes in for each piece ({"code", "limit"}), a line goes out ({"ok", "out", "err",
"result", "ms"}). What the code writes goes to files in memory, never to the line out.
"""
import ast, base64, io, json, os, signal, sys, time, traceback

# Without a display a figure is drawn in memory.
os.environ.setdefault("MPLBACKEND", "agg")

signal.signal(signal.SIGINT, signal.SIG_IGN)
ask = os.fdopen(os.dup(0), "r", encoding="utf-8")
tell = os.fdopen(os.dup(1), "w", encoding="utf-8")
null = os.open("/dev/null", os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(null, number)
space = {"__name__": "__main__", "__builtins__": __builtins__}


def image(png):
    return {"type": "image", "format": "png", "base64_data": base64.b64encode(png).decode()}


def figure():
    """The last figure that the code drew; the others are closed as well."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or not pyplot.get_fignums():
        return None
    png = io.BytesIO()
    pyplot.savefig(png, format="png")
    pyplot.close("all")
    return image(png.getvalue())


def plain(value):
    if value is None or isinstance(value, (bool, int, float, str, list, dict)):
        try:
            return json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            pass
    shown = getattr(value, "_repr_png_", None)
    return image(shown()) if callable(shown) else repr(value)


def evaluate(code):
    tree = ast.parse(code, "<execution>")
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)
    exec(compile(tree, "<execution>", "exec"), space)
    value = plain(eval(compile(last, "<execution>", "eval"), space)) if last else None
    return figure() or value


def interrupt(number, frame):
    # Once for each piece of code: a second one could hit what tells of the first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(code):
    streams = [os.memfd_create("out"), os.memfd_create("err")]
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)
    ok, result, started = True, None, time.monotonic()
    try:
        try:
            signal.signal(signal.SIGINT, interrupt)
            result = evaluate(code)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    except BaseException:
        ok = False
        traceback.print_exc(file=open(2, "w", closefd=False))
    said = []
    for number, stream in enumerate(streams, 1):
        try:
            (sys.stdout, sys.stderr)[number - 1].flush()
        except Exception:
            pass
        os.dup2(null, number)
        size = os.fstat(stream).st_size
        said.append(os.pread(stream, min(size, 64 << 20), 0).decode("utf-8", "replace"))
        os.close(stream)
    took = int((time.monotonic() - started) * 1000)
    return {"ok": ok, "out": said[0], "err": said[1], "result": result, "ms": took}


for line in ask:
    request = json.loads(line)
    answer = run(request["code"])
    for stream in ("out", "err"):
        answer[stream] = answer[stream][: request["limit"]]
    tell.write(json.dumps(answer) + "\n")
    tell.flush()
