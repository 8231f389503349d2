import base64, hashlib, json, os, shutil, subprocess
a = json.loads(base64.b64decode(args))
def say(**what):
    print(a["nonce"] + json.dumps(what) + a["nonce"], flush=True)
def run():
    if a["marker"] and not os.path.exists(a["marker"]):
        return say(lost=True)
    d = a["dir"]
    os.makedirs(d)
    with open(d + "/t", "wb") as t:
        done = subprocess.run(["/bin/sh", "-c", a["line"]], stdin=subprocess.DEVNULL, stdout=t,
                              stderr=subprocess.DEVNULL, cwd="/")
    with open(d + "/t", "rb") as t:
        sha, size = hashlib.sha256(), 0
        for part in iter(lambda: t.read(1 << 20), b""):
            sha.update(part)
            size += len(part)
    out = None
    if size <= a["inline"]:
        with open(d + "/t", "rb") as t:
            out = base64.b64encode(t.read()).decode()
        shutil.rmtree(d)
    else:
        os.link(d + "/t", d + ".t")
    say(rc=done.returncode, len=size, sha=sha.hexdigest(), out=out)
run()
