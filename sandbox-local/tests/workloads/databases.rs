//! Databases: shared memory, locks, sockets, sync of files.

use sandbox_core::FileBatch;

use crate::prints;

#[tokio::test]
async fn postgresql_is_initialised_started_and_queried() {
    let script = r#"
        PATH=$(echo /usr/lib/postgresql/*/bin | tr ' ' '\n' | tail -n 1):$PATH
        initdb -D data -A trust -N >/dev/null
        pg_ctl -D data -o "-k $PWD -c listen_addresses=127.0.0.1" -l log -w start >/dev/null
        psql -q -h 127.0.0.1 postgres -c 'create table t (n int primary key)' \
            -c 'insert into t select generate_series(1, 10000)'
        psql -qtA -h "$PWD" postgres -c 'select count(*), sum(n) from t'
        pg_ctl -D data -m fast -w stop >/dev/null
        pg_ctl -D data -o "-k $PWD" -l log -w start >/dev/null
        psql -qtA -h "$PWD" postgres -c 'select max(n) from t'
    "#;
    prints("10000|50005000\n10000", FileBatch::new(), script).await;
}

#[tokio::test]
async fn redis_serves_and_saves() {
    let script = r#"
        redis-server --port 0 --unixsocket "$PWD/s" --daemonize yes --logfile log >/dev/null
        cli() { redis-cli -s "$PWD/s" "$@"; }
        until cli ping >/dev/null 2>&1; do :; done
        for i in 1 2 3; do cli rpush list "$i" >/dev/null; done
        cli save >/dev/null
        test -s dump.rdb
        cli lrange list 0 -1 | tr '\n' ' '
    "#;
    prints("1 2 3", FileBatch::new(), script).await;
}

#[tokio::test]
async fn four_processes_write_one_sqlite_database_in_wal_mode() {
    let program = r#"
import multiprocessing, sqlite3
def write(n):
    with sqlite3.connect('d', timeout=60) as db:
        for i in range(100):
            db.execute('insert into t values (?, ?)', (n, i))
            db.commit()
if __name__ == '__main__':
    db = sqlite3.connect('d')
    print(db.execute('pragma journal_mode=wal').fetchone())
    db.execute('create table t (n, i)')
    db.commit()
    with multiprocessing.Pool(4) as pool:
        pool.map(write, range(4))
    print(db.execute('select count(*), sum(i) from t').fetchone())
"#;
    let files = FileBatch::new().file("a.py", program);
    prints("(400, 19800)", files, "/usr/bin/python3 a.py").await;
}
