//! A valid component with random mutations: bytes changed, removed, repeated or cut off. Each is either refused with a
//! message, or accepted, and then runs or fails its own step. No mutation may fail the host.

use aster_core::wit::Type;
use serde_json::json;

use super::*;

const SEED: u64 = 1;
const MUTATIONS: usize = 1_000;

/// Texts, lists and records in both directions, in an interface and at the top level. The component is small, so that
/// most of its bytes matter.
const GOOD: &str = r#"
(component
  (core module $m
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 1024))
    (table 2 funcref)
    (elem (i32.const 0) func $realloc)
    (data (i32.const 8) "\10\00\00\00\05\00\00\00hello")
    (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at))
    (func (export "greet") (param i32 i32) (result i32) (i32.const 8))
    (func (export "total") (param i32 i32) (result i64)
      (local $sum i64)
      (block $done (loop $next
        (br_if $done (i32.eqz (local.get 1)))
        (local.set $sum (i64.add (local.get $sum) (i64.load (local.get 0))))
        (local.set 0 (i32.add (local.get 0) (i32.const 8)))
        (local.set 1 (i32.sub (local.get 1) (i32.const 1)))
        (br $next)))
      (local.get $sum)))
  (core instance $i (instantiate $m))
  (alias core export $i "memory" (core memory $memory))
  (alias core export $i "cabi_realloc" (core func $realloc))
  (type $price (record (field "amount" s64)))
  (export $Price "price" (type $price))
  (func $greet (param "name" string) (result string)
    (canon lift (core func $i "greet") (memory $memory) (realloc $realloc)))
  (func $total (param "prices" (list $Price)) (result s64)
    (canon lift (core func $i "total") (memory $memory) (realloc $realloc)))
  (instance $shop (export "greet" (func $greet)))
  (export "acme:shop/greeter@1.0.0" (instance $shop))
  (export "total" (func $total)))"#;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}

fn mutated(good: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = good.to_vec();
    match random.below(10) {
        0 => bytes.truncate(random.below(good.len())),
        1 => {
            let from = random.below(good.len());
            bytes.drain(from..(from + 1 + random.below(20)).min(good.len()));
        }
        2 => {
            let from = random.below(good.len());
            let piece = bytes[from..(from + random.below(30)).min(good.len())].to_vec();
            let at = random.below(good.len());
            bytes.splice(at..at, piece);
        }
        3 => bytes[random.below(good.len())] = 0xff,
        4 => bytes[random.below(good.len())] = 0,
        5 => bytes[random.below(good.len())] = random.below(256) as u8,
        // Mostly a single bit, as an error in a transmission would.
        _ => {
            for _ in 0..=random.below(3) {
                bytes[random.below(good.len())] ^= 1 << random.below(8);
            }
        }
    }
    bytes
}

/// Returns a value that fits, if there is one.
fn sample(ty: &Type) -> Value {
    match ty {
        Type::Bool => json!(true),
        Type::Char => json!("a"),
        Type::String => json!("Ada"),
        Type::List(inner) => match &**inner {
            Type::U8 => json!("AAAA"),
            inner => json!([sample(inner), sample(inner)]),
        },
        Type::Tuple(parts) => parts.iter().map(sample).collect(),
        Type::Record(fields) => fields.iter().map(|field| (field.name.clone(), sample(&field.ty))).collect(),
        Type::Enum(names) => json!(names.first()),
        Type::Flags(_) => json!([]),
        Type::Option(_) => Value::Null,
        _ => json!(1),
    }
}

#[tokio::test]
async fn a_thousand_mutations_are_refused_or_do_no_harm() {
    let good = wat(GOOD);
    SANDBOX.compile(Behalf::Host, good.clone()).await.expect("it is good");
    let healthy = Guest::new("greeter-v1").await;
    let mut random = Random(SEED);
    let (mut refused, mut cut_off, mut taken, mut called) = (0, 0, 0, 0);
    for n in 0..MUTATIONS {
        let bytes = Bytes::from(mutated(&good, &mut random));
        let loaded =
            tokio::time::timeout(Duration::from_secs(60), SANDBOX.compile(Behalf::Host, bytes.clone()));
        match loaded.await.unwrap_or_else(|_| panic!("mutation {n} of seed {SEED} hangs")) {
            Err(error @ (UploadError::Host(_) | UploadError::Busy(_) | UploadError::CompilerCrashed(_))) => {
                panic!("mutation {n} of seed {SEED}: {error}")
            }
            Err(UploadError::CutOff { .. }) => cut_off += 1,
            Err(_) => refused += 1,
            Ok(loaded) => {
                taken += 1;
                let wit = wit_text(bytes, loaded.exports().clone()).await;
                wit.unwrap_or_else(|error| panic!("mutation {n} of seed {SEED}: {error}"));
                called += call_all(&loaded).await;
            }
        }
    }
    assert!(
        refused > MUTATIONS / 2 && taken > MUTATIONS / 50,
        "{refused} refused, {cut_off} cut off, {taken} taken"
    );
    assert!(called > taken / 2, "{called} calls of {taken}");
    healthy.ok("greet", &[json!("Ada")]).await;
}

/// Calls everything that the component offers, with values that fit, and returns the number of calls.
async fn call_all(loaded: &Arc<Loaded>) -> usize {
    let session = Session::new(TenantId::default(), Arc::new(InMemory::default()));
    let mut called = 0;
    for function in &loaded.exports().functions {
        let Ok(handle) = loaded.find(function.interface.as_deref(), &function.name) else { continue };
        let args: Vec<Value> = function.params.iter().map(|param| sample(&param.ty)).collect();
        let limits = CallLimits {
            fuel: 1_000_000,
            memory_bytes: 8 << 20,
            deadline: Instant::now() + Duration::from_secs(5),
        };
        let report = SANDBOX.call(Call {
            loaded,
            function: handle,
            component: "mutant".into(),
            args,
            limits,
            context: context(),
            session: &session,
        });
        report.await.expect("whatever it does is its own step's failure");
        called += 1;
    }
    called
}
