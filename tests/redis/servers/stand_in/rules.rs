//! What managed services, old servers and proxies are documented or reported to lack.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Answer, Command, Rule};

/// All commands but these are passed on.
pub(crate) fn refuse(names: &'static [&'static str], answer: Answer) -> impl Fn() -> Rule {
    move || {
        let answer = answer.clone();
        Box::new(move |command: &Command| {
            if names.iter().any(|name| command.is(name)) { answer.clone() } else { Answer::Pass }
        })
    }
}

/// Every command has this answer.
pub(crate) fn say(answer: impl Into<String>) -> impl Fn() -> Rule {
    let answer = answer.into();
    move || {
        let answer = answer.clone();
        Box::new(move |_: &Command| Answer::Say(answer.clone()))
    }
}

/// As a server before Redis 6.0 answers, and most servers that are compatible with it.
pub(crate) fn no_hello() -> impl Fn() -> Rule {
    refuse(&["HELLO"], Answer::Say("-ERR unknown command 'HELLO'\r\n".to_owned()))
}

/// Refuses `TIME` inside scripts, as a managed service is reported to. Outside of scripts
/// it is answered.
///
/// The server behind it has to be started with [`TIME_RENAMED`], so that no script can call `TIME`.
pub(crate) fn refuse_time() -> impl Fn() -> Rule {
    const REFUSED: &str = "ERR This Redis command is not allowed from script script: \
        5f3c7d0a1b2c3d4e5f60718293a4b5c6d7e8f901, on @user_script:12.";
    || {
        Box::new(|command: &Command| {
            if command.is("TIME") {
                Answer::Ask(vec![TIME_RENAMED[2]])
            } else if command.is_script() {
                // "Unknown Redis command called from script". Other errors have to be seen, such as
                // that of an unknown script.
                Answer::Reword { with: "called from", to: REFUSED.to_owned() }
            } else {
                Answer::Pass
            }
        })
    }
}

/// The options of a server whose `TIME` has another name.
pub(crate) const TIME_RENAMED: [&str; 3] = ["--rename-command", "TIME", "ITS-TIME"];

/// How far the server's clock is ahead, as scripts see it, in microseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClockAhead(Arc<AtomicI64>);

impl ClockAhead {
    /// Sets the clock forward, or back.
    pub(crate) fn step(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }

    /// Scripts that would ask the server for the time are given it.
    pub(crate) fn rule(&self) -> impl Fn() -> Rule + use<> {
        let ahead = Arc::clone(&self.0);
        move || {
            let ahead = Arc::clone(&ahead);
            Box::new(move |command: &Command| {
                if !command.is_script() {
                    return Answer::Pass;
                }
                // The first argument, after the script, the number of keys and the keys.
                let at = 3 + command.words()[2].parse::<usize>().unwrap();
                assert_eq!(command.words()[at], "0", "the script asks for the time");
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
                let now = i64::try_from(now).unwrap() + ahead.load(Ordering::SeqCst);
                Answer::Instead(command.with_word(at, &now.to_string()))
            })
        }
    }
}

/// A password that can be changed. A connection that has given the right one goes on.
#[derive(Clone, Debug)]
pub(crate) struct Password(Arc<Mutex<String>>);

impl Password {
    pub(crate) fn new(password: &str) -> Self {
        Self(Arc::new(Mutex::new(password.to_owned())))
    }

    pub(crate) fn change_to(&self, password: &str) {
        password.clone_into(&mut self.0.lock().unwrap());
    }

    /// Every user has this password.
    pub(crate) fn rule(&self) -> impl Fn() -> Rule + use<> {
        let current = Arc::clone(&self.0);
        move || {
            let (current, mut known) = (Arc::clone(&current), false);
            Box::new(move |command: &Command| {
                // `AUTH [user] password`, or `HELLO 2 AUTH user password`.
                let words = command.words();
                let hello = command.is("HELLO") && words.get(2).is_some_and(|word| word == "AUTH");
                if !hello && !command.is("AUTH") {
                    return if known {
                        Answer::Pass
                    } else {
                        Answer::Say("-NOAUTH Authentication required.\r\n".to_owned())
                    };
                }
                let given = if hello { words.get(4) } else { words.last() };
                known = given == Some(&*current.lock().unwrap());
                if !known {
                    return Answer::Say(
                        "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
                            .to_owned(),
                    );
                }
                if hello { Answer::Ask(vec!["HELLO"]) } else { Answer::Say("+OK\r\n".to_owned()) }
            })
        }
    }
}
