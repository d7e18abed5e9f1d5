//! Random workflows over a small bank, which keeps what the steps did.

use aster_core::id::Digest;
use aster_core::plan::{
    Backoff, Call, Capabilities, Compensation, Expr, Limits, PLAN_FORMAT, Plan, Retry, Statement, Step,
    StepName, Type,
};

use aster_runner::random::Random;

/// Of every definition here: nobody compares it.
pub(super) const DIGEST: Digest = Digest([7; 32]);

/// Few, so that runs meet.
pub(super) const ACCOUNTS: u64 = 3;

/// One to six steps in a random graph, over the first so many accounts.
pub(super) fn random(random: &mut Random, name: String, accounts: u64) -> Plan {
    let count = random.index(6) + 1;
    let steps = (0..count).map(|index| step(random, index, accounts)).collect();
    Plan {
        format: PLAN_FORMAT,
        name,
        parameters: Vec::new(),
        result: Type::Json,
        capabilities: Capabilities::Any,
        timeout_ms: Some(random.between(1_500, 60_000)),
        retry: None,
        fuel: None,
        trigger: None,
        steps,
    }
}

fn step(random: &mut Random, index: usize, accounts: u64) -> Step {
    let name = |index: usize| StepName::from(format!("step_{index}"));
    let mut depends_on: Vec<usize> = match index {
        0 => Vec::new(),
        // Mostly a chain, now and then parallel.
        _ if random.per_mille(600) => vec![index - 1],
        _ => (0..random.index(3)).map(|_| random.index(index)).collect(),
    };
    depends_on.sort_unstable();
    depends_on.dedup();
    let takes = random.per_mille(700);
    let account = random.between(0, accounts);
    let amount = random.between(1, 20);
    Step {
        name: name(index),
        line: 1,
        depends_on: depends_on.into_iter().map(name).collect(),
        when: random.per_mille(50).then(|| Expr::Literal(false.into())),
        body: match takes {
            true => calls("take", account, amount),
            false if random.per_mille(500) => calls("note", account, amount),
            false => vec![Statement::Return { err: false, value: Expr::Literal(amount.into()) }],
        },
        limits: limits(random),
        retry: random.per_mille(500).then(|| retry(random)),
        compensation: takes.then(|| Compensation {
            line: 1,
            body: calls("give_back", account, amount),
            limits: limits(random),
            retry: random.per_mille(500).then(|| retry(random)),
        }),
    }
}

fn calls(function: &str, account: u64, amount: u64) -> Vec<Statement> {
    let call = Call {
        capability: "Bank".into(),
        interface: None,
        function: function.into(),
        args: vec![Expr::Literal(account.into()), Expr::Literal(amount.into())],
        line: 1,
    };
    vec![Statement::Return { err: false, value: Expr::Call(call) }]
}

fn limits(random: &mut Random) -> Limits {
    Limits { timeout_ms: Some(random.between(200, 5_000)), ..Limits::default() }
}

fn retry(random: &mut Random) -> Retry {
    Retry {
        max_attempts: u32::try_from(random.between(1, 5)).unwrap_or(1),
        backoff: match random.index(3) {
            0 => Backoff::Exponential,
            1 => Backoff::Linear,
            _ => Backoff::Constant,
        },
        initial_delay_ms: random.between(10, 2_000),
        max_delay_ms: random.between(2_000, 8_000),
    }
}
