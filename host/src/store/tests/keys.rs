use aster_core::keyvalue::{Entry, Read, Version, Write};
use futures_util::future::join_all;
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};

use super::*;

fn read(name: &str, version: i64) -> Read {
    Read { key: key(name), version: Version(version) }
}

fn write(name: &str, value: &str) -> Write {
    Write { key: key(name), value: Some(value.into()) }
}

fn with(effects: Effects, transition: Transition) -> Transition {
    Transition { effects, ..transition }
}

/// Which keys it was refused for.
fn stale(answer: Result<Committed, Error>) -> Vec<Key> {
    match answer {
        Err(Error::Conflict { keys }) => keys,
        other => panic!("expected a conflict, not {other:?}"),
    }
}

/// Until a statement of this database waits for a lock.
pub(super) async fn someone_waits(connection: &mut PgConnection) {
    loop {
        let waits: bool = sqlx::query_scalar(
            "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        if waits {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn effects_are_committed_with_the_transition(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    let effects = Effects { reads: vec![read("a", 0)], writes: vec![write("a", "1"), write("b", "2")] };
    bed.commit(with(effects, first_step(run))).await.unwrap();
    let entry =
        |version, value: Option<&str>| Entry { version: Version(version), value: value.map(Into::into) };
    for (name, expected) in [("b", entry(1, Some("2"))), ("none", entry(0, None)), ("a", entry(1, Some("1")))]
    {
        assert_eq!(bed.store.read_entry(&key(name)).await.unwrap(), expected);
    }

    let deletion = Effects { reads: vec![], writes: vec![Write { key: key("a"), value: None }] };
    bed.commit(with(deletion, step(run, NewRun::FIRST_FENCE, 2))).await.unwrap();
    assert_eq!(bed.store.read_entry(&key("a")).await.unwrap(), entry(2, None));
    let keys = bed.store.list_keys(&tenant(), "inventory", "stock", None, 10).await.unwrap();
    assert_eq!(keys, ["b".into()]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_conflict_harms_no_neighbour_and_names_the_stale_keys(pool: PgPool) {
    let bed = Bed::new(pool).await;
    bed.store.put_entry(&key("moved"), b"0").await.unwrap();
    bed.store.put_entry(&key("moved"), b"1").await.unwrap();
    let runs = join_all((0..20).map(|_| bed.started())).await;
    let answers = join_all(runs.iter().enumerate().map(|(i, &run)| {
        let effects = match i {
            5 => Effects { reads: vec![read("moved", 1)], writes: vec![write("of-5", "x")] },
            // A failure that depends on a read: nothing is written, and it is validated all the same.
            6 => Effects { reads: vec![read("moved", 1), read("free", 0)], writes: vec![] },
            _ => Effects { reads: vec![read("moved", 2)], writes: vec![write(&format!("of-{i}"), "x")] },
        };
        bed.commit(with(effects, first_step(run)))
    }))
    .await;
    for (i, answer) in answers.into_iter().enumerate() {
        let name = format!("of-{i}");
        if matches!(i, 5 | 6) {
            assert_eq!(stale(answer), [key("moved")]);
            assert_eq!((bed.value(&name).await, bed.log_length(runs[i]).await), (None, 1));
        } else {
            answer.unwrap();
            assert_eq!((bed.value(&name).await, bed.log_length(runs[i]).await), (Some(b"x".to_vec()), 2));
        }
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_version_that_moves_while_the_commit_waits_for_the_row_is_noticed(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = PgPoolOptions::new().connect_with(options.clone()).await.unwrap();
    let bed = Bed::new(pool).await;
    let (reader, overwriter) = (bed.started().await, bed.started().await);
    bed.store.put_entry(&key("a"), b"10").await.unwrap();
    let mut watcher = PgConnection::connect_with(&options).await.unwrap();
    let mut other = PgConnection::connect_with(&options).await.unwrap();
    let bump = "update keyvalue_entry set value = 'theirs', version = version + 1 where key = 'a'";

    let mut theirs = other.begin().await.unwrap();
    sqlx::query(bump).execute(&mut *theirs).await.unwrap();
    let effects = Effects { reads: vec![read("a", 1)], writes: vec![write("a", "9")] };
    let ours = bed.commit(with(effects, first_step(reader)));
    let (answer, ()) = tokio::join!(ours, async {
        someone_waits(&mut watcher).await;
        theirs.commit().await.unwrap();
    });
    assert_eq!(stale(answer), [key("a")]);
    assert_eq!(bed.value("a").await, Some(b"theirs".to_vec()));
    assert_eq!(bed.log_length(reader).await, 1);

    // Without a read it isn't a conflict, and no version is given twice.
    let mut theirs = other.begin().await.unwrap();
    sqlx::query(bump).execute(&mut *theirs).await.unwrap();
    let effects = Effects { reads: vec![], writes: vec![write("a", "ours")] };
    let ours = bed.commit(with(effects, first_step(overwriter)));
    let (answer, ()) = tokio::join!(ours, async {
        someone_waits(&mut watcher).await;
        theirs.commit().await.unwrap();
    });
    answer.unwrap();
    let entry = bed.store.read_entry(&key("a")).await.unwrap();
    assert_eq!(entry, Entry { version: Version(4), value: Some(b"ours".to_vec()) });
}

#[sqlx::test(migrations = "../migrations")]
async fn what_was_compared_is_locked_until_it_is_written(_: PgPoolOptions, options: PgConnectOptions) {
    let pool = PgPoolOptions::new().connect_with(options.clone()).await.unwrap();
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    bed.store.put_entry(&key("read"), b"1").await.unwrap();
    bed.store.put_entry(&key("written"), b"1").await.unwrap();
    let mut watcher = PgConnection::connect_with(&options).await.unwrap();
    let mut other = PgConnection::connect_with(&options).await.unwrap();
    // Stops the commit when it has compared the keys and goes on to its run.
    sqlx::raw_sql(
        "create function pause() returns trigger language plpgsql as $$
        begin
            perform pg_advisory_xact_lock_shared(1);
            return null;
        end $$;
        create trigger pause after update on keyvalue_entry for each statement execute function pause();
        select pg_advisory_lock(1);",
    )
    .execute(&mut watcher)
    .await
    .unwrap();
    sqlx::raw_sql("set lock_timeout = '100ms'; set session_replication_role = 'replica'")
        .execute(&mut other)
        .await
        .unwrap();

    let effects =
        Effects { reads: vec![read("read", 1), read("written", 1)], writes: vec![write("written", "2")] };
    let (answer, ()) = tokio::join!(bed.commit(with(effects, first_step(run))), async {
        someone_waits(&mut watcher).await;
        for name in ["read", "written"] {
            let overtaking = sqlx::query("update keyvalue_entry set version = version + 1 where key = $1")
                .bind(name)
                .execute(&mut other)
                .await;
            assert!(overtaking.unwrap_err().to_string().contains("lock timeout"), "`{name}` wasn't locked");
        }
        sqlx::query("select pg_advisory_unlock(1)").execute(&mut watcher).await.unwrap();
    });
    answer.unwrap();
    assert_eq!(bed.store.read_entry(&key("written")).await.unwrap().version, Version(2));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_key_that_appears_while_the_commit_inserts_it_is_noticed(
    _: PgPoolOptions,
    options: PgConnectOptions,
) {
    let pool = PgPoolOptions::new().connect_with(options.clone()).await.unwrap();
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    let mut watcher = PgConnection::connect_with(&options).await.unwrap();
    let mut other = PgConnection::connect_with(&options).await.unwrap();
    let mut theirs = other.begin().await.unwrap();
    sqlx::query("insert into keyvalue_entry values ('default', 'inventory', 'stock', 'a', 'theirs', 1)")
        .execute(&mut *theirs)
        .await
        .unwrap();
    let effects = Effects { reads: vec![read("a", 0)], writes: vec![write("a", "ours")] };
    let (answer, ()) = tokio::join!(bed.commit(with(effects, first_step(run))), async {
        someone_waits(&mut watcher).await;
        theirs.commit().await.unwrap();
    });
    assert_eq!(stale(answer), [key("a")]);
    assert_eq!(bed.value("a").await, Some(b"theirs".to_vec()));
}

#[sqlx::test(migrations = "../migrations")]
async fn no_write_skew_by_keys_that_were_only_read(_: PgPoolOptions, options: PgConnectOptions) {
    let pools = [
        PgPoolOptions::new().connect_with(options.clone()).await.unwrap(),
        PgPoolOptions::new().connect_with(options).await.unwrap(),
    ];
    let [here, there] = pools;
    let (here, there) = (Bed::new(here).await, Bed::new(there).await);
    for round in 0..40 {
        // Each of the two may go off duty if the other one stays.
        let (a, b) = (format!("a-{round}"), format!("b-{round}"));
        let (one, two) = tokio::join!(here.started(), there.started());
        let both = || vec![read(&a, 0), read(&b, 0)];
        let (one, two) = tokio::join!(
            here.commit(with(Effects { reads: both(), writes: vec![write(&a, "off")] }, first_step(one))),
            there.commit(with(Effects { reads: both(), writes: vec![write(&b, "off")] }, first_step(two))),
        );
        assert!(one.is_ok() != two.is_ok(), "round {round}: {one:?}, {two:?}");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn opposite_orders_of_keys_do_not_deadlock(_: PgPoolOptions, options: PgConnectOptions) {
    let pools = [
        PgPoolOptions::new().connect_with(options.clone()).await.unwrap(),
        PgPoolOptions::new().connect_with(options.clone()).await.unwrap(),
    ];
    let [here, there] = pools;
    let (here, there) = (Bed::new(here).await, Bed::new(there).await);
    for round in 0..20 {
        let names: Vec<String> = (0..30).map(|i| format!("{round}-{i}")).collect();
        let writes = |reversed: bool| {
            let mut writes: Vec<Write> = names.iter().map(|name| write(name, "x")).collect();
            if reversed {
                writes.reverse();
            }
            Effects { reads: vec![], writes }
        };
        let (one, two) = tokio::join!(here.started(), there.started());
        let (one, two) = tokio::join!(
            here.commit(with(writes(false), first_step(one))),
            there.commit(with(writes(true), first_step(two))),
        );
        one.unwrap();
        two.unwrap();
    }
    let mut watcher = PgConnection::connect_with(&options).await.unwrap();
    // Counters are reported by a backend when it ends or is idle for a second.
    drop((here, there));
    let deadlocks: i64 =
        sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
            .fetch_one(&mut watcher)
            .await
            .unwrap();
    assert_eq!(deadlocks, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_counter_that_all_runs_raise_loses_nothing(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let runs = join_all((0..20).map(|_| bed.started())).await;
    join_all(runs.iter().map(|&run| {
        let bed = &bed;
        async move {
            loop {
                let Entry { version, value } = bed.store.read_entry(&key("n")).await.unwrap();
                let n: u32 = value.map_or(0, |value| String::from_utf8(value).unwrap().parse().unwrap());
                let effects = Effects {
                    reads: vec![read("n", version.0)],
                    writes: vec![write("n", &(n + 1).to_string())],
                };
                match bed.commit(with(effects, first_step(run))).await {
                    Ok(_) => break,
                    Err(Error::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }))
    .await;
    assert_eq!(bed.value("n").await, Some(b"20".to_vec()));
}

#[sqlx::test(migrations = "../migrations")]
async fn names_that_postgres_cannot_keep_are_refused(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let run = bed.started().await;
    for name in ["a\0b".to_owned(), "x".repeat(513)] {
        let effects = Effects { reads: vec![], writes: vec![write(&name, "1")] };
        let answer = bed.commit(with(effects, first_step(run))).await;
        assert!(matches!(answer, Err(Error::Refused { .. })), "{answer:?}");
        let answer = bed.store.put_entry(&key(&name), b"1").await;
        assert!(matches!(answer, Err(Error::Refused { .. })), "{answer:?}");
    }
    // The longest names that are allowed fit the index.
    let long: Arc<str> = (0..512).map(|i| char::from(b'!' + (i * 7 % 90) as u8)).collect::<String>().into();
    let longest = Key { component: long.clone(), bucket: long.clone(), key: long, ..key("") };
    bed.store.put_entry(&longest, b"1").await.unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn operators_list_set_and_delete_by_the_order_of_bytes(pool: PgPool) {
    let bed = Bed::new(pool).await;
    for name in ["ä", "Z", "a", "B"] {
        assert_eq!(bed.store.put_entry(&key(name), name.as_bytes()).await.unwrap(), Version(1));
    }
    assert_eq!(bed.store.put_entry(&key("a"), b"again").await.unwrap(), Version(2));
    assert!(bed.store.delete_entry(&key("Z")).await.unwrap());
    assert!(!bed.store.delete_entry(&key("Z")).await.unwrap());
    let listed = bed.store.list_entries(&tenant(), "inventory", "stock", Some("A"), 10).await.unwrap().items;
    let listed: Vec<_> = listed.iter().map(|entry| (&*entry.key, entry.version.0)).collect();
    assert_eq!(listed, [("B", 1), ("a", 2), ("ä", 1)]);
    assert_eq!(bed.store.put_entry(&key("Z"), b"").await.unwrap(), Version(3));
}

/// Commits two transitions, of which the second reads what the first one writes while that is still in line.
async fn chain(bed: &Bed, read_version: i64) -> [Result<Committed, Error>; 2] {
    let (one, two) = (bed.started().await, bed.started().await);
    let (tell, in_line) = tokio::sync::oneshot::channel();
    let effects = Effects { reads: vec![read("n", read_version)], writes: vec![write("n", "first")] };
    let first = bed.store.commit_in_line(bed.host, with(effects, first_step(one)), || tell.send(()).unwrap());
    let second = async {
        in_line.await.unwrap();
        let Entry { version, value } = bed.store.read_entry(&key("n")).await.unwrap();
        assert!(version.0 < 0, "{version:?} isn't tentative");
        assert_eq!(value.as_deref(), Some(&b"first"[..]));
        let effects = Effects { reads: vec![read("n", version.0)], writes: vec![write("n", "second")] };
        bed.commit(with(effects, first_step(two))).await
    };
    tokio::join!(first, second).into()
}

#[sqlx::test(migrations = "../migrations")]
async fn who_reads_what_is_in_line_is_committed_behind_it(pool: PgPool) {
    let bed = Bed::new(pool).await;
    let answers = chain(&bed, 0).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let entry = bed.store.load_entry(&key("n")).await.unwrap();
    assert_eq!((entry.version, entry.value.as_deref()), (Version(2), Some(&b"second"[..])));
}

#[sqlx::test(migrations = "../migrations")]
async fn who_reads_what_is_in_line_is_refused_with_it(pool: PgPool) {
    let bed = Bed::new(pool.clone()).await;
    // Unseen by this host.
    sqlx::query("insert into keyvalue_entry values ('default', 'inventory', 'stock', 'n', 'other', 1)")
        .execute(&pool)
        .await
        .unwrap();
    for answer in chain(&bed, 0).await {
        assert_eq!(stale(answer), [key("n")]);
    }
    let entry = bed.store.load_entry(&key("n")).await.unwrap();
    assert_eq!((entry.version, entry.value.as_deref()), (Version(1), Some(&b"other"[..])));
}
