//! Asks several servers that may disagree.

use std::collections::HashMap;
use std::hash::Hash;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::error::RedisStoreError;

/// The answer of more than half of all servers, as soon as there is one; otherwise the most
/// frequent answer, when all servers have answered or failed. One answer is not enough, because a
/// server that was cut off from the others may still give an old one.
pub(super) async fn majority<T, F>(asked: impl IntoIterator<Item = F>) -> Result<T, RedisStoreError>
where
    T: Eq + Hash,
    F: Future<Output = Result<T, RedisStoreError>>,
{
    let mut answers: FuturesUnordered<F> = asked.into_iter().collect();
    let (all, mut votes, mut trouble) = (answers.len(), HashMap::new(), None);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(answer) => {
                let (answer, count) = votes
                    .remove_entry(&answer)
                    .map_or((answer, 1), |(answer, count)| (answer, count + 1));
                if count > all / 2 {
                    return Ok(answer);
                }
                votes.insert(answer, count);
            }
            Err(error) => trouble = Some(error),
        }
    }
    match votes.into_iter().max_by_key(|(_, count)| *count) {
        Some((answer, _)) => Ok(answer),
        None => {
            Err(trouble.unwrap_or_else(|| RedisStoreError::setting("no server", "none is named")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt;
    use futures_util::future::Either;

    use super::{RedisStoreError, majority};

    fn says(what: u8) -> Result<u8, RedisStoreError> {
        Ok(what)
    }

    fn fails() -> Result<u8, RedisStoreError> {
        Err(RedisStoreError::setting("a server", "it is down"))
    }

    fn asked(answers: impl IntoIterator<Item = Result<u8, RedisStoreError>>) -> Option<u8> {
        majority(answers.into_iter().map(ready)).now_or_never().and_then(Result::ok)
    }

    #[test]
    fn what_more_than_half_say_is_believed_without_waiting_for_the_others() {
        let silent = || Either::Left(pending::<Result<u8, RedisStoreError>>());
        let answer = |what| Either::Right(ready(says(what)));
        assert_eq!(
            majority([silent(), answer(1), answer(1)]).now_or_never().and_then(Result::ok),
            Some(1)
        );
        assert!(majority([silent(), answer(1), silent()]).now_or_never().is_none());
    }

    #[test]
    fn otherwise_what_most_of_those_say_who_answer() {
        assert_eq!(asked([says(1), says(2), says(2), fails(), fails()]), Some(2));
        assert_eq!(asked([fails(), says(3), fails()]), Some(3));
        assert_eq!(asked([fails(), fails()]), None);
        assert_eq!(asked([]), None);
    }
}
