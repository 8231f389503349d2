# What a sandbox tries of the network: one line for each attempt. Only Python's own library, and the
# parts that take long to load only where they are used: it is started for each attempt.
import socket, struct, sys, time

LIMIT = 8.0


def answer(stream):
    """All that comes until the end or a pause; then how it ended."""
    stream.settimeout(LIMIT)
    got = b""
    try:
        while len(got) < 1 << 20:
            some = stream.recv(65536)
            if not some:
                return got, "closed"
            got += some
            stream.settimeout(0.25)
    except socket.timeout:
        return got, "open"
    except OSError as error:
        return got, type(error).__name__
    return got, "long"


def show(got, end):
    return repr(got)[2:-1] + " " + end


def dial(name, port):
    return socket.create_connection((name, int(port)), LIMIT)


def lookup(name):
    found = socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)
    return found[0][4][0]


def connect(address, port):
    dial(address, port).close()
    return "connected"


def raw(name, port, *parts):
    """Sends texts with escapes, one write each."""
    stream = dial(name, port)
    for part in parts:
        stream.sendall(part.encode().decode("unicode_escape").encode("latin-1"))
        time.sleep(0.02)
    return show(*answer(stream))


def hello_bytes(name):
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name or None)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def records(message, size):
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + struct.pack("!H", len(part)) + part for part in parts)


def extended(hello, kind, content):
    message = bytearray(hello[5:])
    at = 4 + 34
    at += 1 + message[at]
    at += 2 + struct.unpack_from("!H", message, at)[0]
    at += 1 + message[at]
    size = struct.unpack_from("!H", message, at)[0] + 4 + len(content)
    struct.pack_into("!H", message, at, size)
    message[at + 2 : at + 2] = struct.pack("!HH", kind, len(content)) + content
    message[1:4] = struct.pack("!I", len(message) - 4)[1:]
    return records(bytes(message), 16000)


def hello(dialled, name, how="whole", port=443):
    first = hello_bytes("" if name == "-" else name)
    if how == "records":
        first = records(first[5:], len(first) // 2)
    elif how == "ech":
        outer = b"\0\0\1\0\1\x2a\0\x20" + b"\7" * 32 + b"\0\x64" + b"\7" * 100
        first = extended(first, 0xFE0D, outer)
    elif how == "long":
        first = extended(first, 0xFAFA, b"\0" * 17000)
    elif how == "garbage":
        first = b"\x16\x03\x01\x00\x20" + b"\xff" * 32
    stream = dial(dialled, port)
    if how == "bytes":
        for byte in first:
            stream.sendall(bytes([byte]))
    elif how == "endless":
        try:
            while True:
                stream.sendall(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff" + b"\x16\x03\x01\x40\x00" + b"\0" * 16384)
        except OSError:
            return "cut"
    else:
        stream.sendall(first)
    return show(*answer(stream))


def question(name, kind=1, pointer=False):
    head = struct.pack("!6H", 0x1234, 0x0100, 1, 0, 0, 0)
    if pointer:
        return head + b"\xc0\x0c" + struct.pack("!HH", kind, 1)
    labels = b"".join(bytes([len(l)]) + l.encode("latin-1") for l in name.split(".") if l)
    return head + labels + b"\0" + struct.pack("!HH", kind, 1)


def dns(name, kind="1", by="udp", server="127.0.0.1"):
    """The code of the answer and how many records it has."""
    query = question(name, int(kind), name == "(loop)")
    if by == "huge":
        query += b"\0" * 65000
    if by == "udp":
        stream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stream.settimeout(2)
        stream.connect((server, 53))
        stream.send(query)
        got = stream.recv(4096)
    else:
        stream = socket.create_connection((server, 53), 2)
        stream.settimeout(2)
        stream.sendall(struct.pack("!H", len(query)) + query)
        head = stream.recv(2)
        if len(head) < 2:
            return "closed"
        got = stream.recv(4096)
    return "code %d records %d" % (got[3] & 15, struct.unpack_from("!H", got, 6)[0])


def many(suffix, count):
    """Asks for many names; how many were answered with an address."""
    stream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stream.settimeout(2)
    stream.connect(("127.0.0.1", 53))
    found = 0
    for number in range(int(count)):
        stream.send(question("n%d.%s" % (number, suffix)))
        try:
            found += stream.recv(4096)[3] & 15 == 0
        except socket.timeout:
            pass
    return str(found)


def half_open(name, port, count):
    """Holds many connections that say nothing, then tells that it does."""
    held = []
    for _ in range(int(count)):
        try:
            held.append(dial(name, port))
        except OSError:
            pass
    print("held", flush=True)
    time.sleep(60)


def hold(name, port):
    """Keeps one connection and says when it is cut."""
    stream = dial(name, port)
    stream.sendall(b"x")
    print("first " + stream.recv(100).decode().strip(), flush=True)
    stream.settimeout(30)
    try:
        print("then " + ("cut" if not stream.recv(100) else "bytes"), flush=True)
    except ConnectionError:
        print("then cut", flush=True)
    except socket.timeout:
        print("then nothing", flush=True)


def own(address, port):
    """A server of the sandbox's own at an address, and a client of it."""
    server = socket.socket()
    server.bind((address, int(port)))
    server.listen()
    client = dial(address, port)
    other, _ = server.accept()
    other.sendall(b"own")
    return client.recv(10).decode()


COMMANDS = [lookup, connect, raw, hello, dns, many, half_open, hold, own]
command = {c.__name__: c for c in COMMANDS}[sys.argv[1]]
try:
    print(command(*sys.argv[2:]) or "", flush=True)
except (OSError, UnicodeError) as error:
    print("error %s %s" % (type(error).__name__, error), flush=True)
