//! How both programs tell a failure: in one line, from what failed to why.

use std::error::Error;

/// The message of `error` and those of its sources, joined by colons. A source that the message
/// has told already is left out.
pub fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Outer(&'static str, #[source] std::fmt::Error);

    #[test]
    fn sources_are_told_once() {
        let inner = std::fmt::Error.to_string();
        assert_eq!(explain(&Outer("x", std::fmt::Error)), format!("x: {inner}"));
        assert_eq!(explain(&std::fmt::Error), inner);
        let told = Box::leak(format!("x ({inner})").into_boxed_str());
        assert_eq!(explain(&Outer(told, std::fmt::Error)), *told);
    }
}
