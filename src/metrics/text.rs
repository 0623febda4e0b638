//! The two text formats that scrapers read. The library writes `OpenMetrics`; the older format of
//! Prometheus, which is what one gets who does not ask, differs in what surrounds the samples.

/// A format, as it is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus, 0.0.4.
    Prometheus,
    /// `OpenMetrics` 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format to answer a scraper in that sends this `Accept` header.
    pub fn accepted(accept: Option<&str>) -> Self {
        let accept = accept.unwrap_or_default();
        let open_metrics = quality(accept, "application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= quality(accept, "text/plain") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// What the answer says that it is.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// How much `accept` wants this media type: the highest of its weights there, 0 if it is not named.
fn quality(accept: &str, media_type: &str) -> f32 {
    let weight = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        if !parts.next().is_some_and(|name| name.eq_ignore_ascii_case(media_type)) {
            return 0.0;
        }
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        weight.map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0))
    };
    accept.split(',').map(weight).fold(0.0, f32::max)
}

/// What the library has written, in the text format 0.0.4: a counter's family bears the name of
/// its samples, a type that is unknown is called untyped, and there are no units and no end mark.
pub(super) fn prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut write = |parts: &[&str]| {
        text.extend(parts.iter().copied());
        text.push('\n');
    };
    // The type decides the name in the line before it.
    let mut help = None;
    for line in open_metrics.lines() {
        let (keyword, rest) =
            line.strip_prefix("# ").and_then(|comment| comment.split_once(' ')).unwrap_or_default();
        match (keyword, rest.split_once(' ')) {
            ("HELP", named) => help = named,
            ("TYPE", Some((name, kind))) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    kind => ("", kind),
                };
                if let Some((_, help)) = help.take() {
                    write(&["# HELP ", name, suffix, " ", help]);
                }
                write(&["# TYPE ", name, suffix, " ", kind]);
            }
            _ if line.starts_with('#') => {}
            _ => write(&[line]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_surrounds_the_samples_is_what_the_older_format_says() {
        let open_metrics = "# HELP calls Calls.\n# TYPE calls counter\n\
                            calls_total{code=\"# HELP\"} 1\n\
                            # HELP size_bytes Size.\n# TYPE size_bytes gauge\n\
                            # UNIT size_bytes bytes\n\
                            size_bytes 2\n\
                            # HELP odd_total Odd.\n# TYPE odd_total unknown\nodd_total 3\n\
                            # HELP took Took.\n# TYPE took histogram\ntook_sum 0.5\ntook_count 1\n\
                            took_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let expected = "# HELP calls_total Calls.\n# TYPE calls_total counter\n\
                        calls_total{code=\"# HELP\"} 1\n\
                        # HELP size_bytes Size.\n# TYPE size_bytes gauge\nsize_bytes 2\n\
                        # HELP odd_total Odd.\n# TYPE odd_total untyped\nodd_total 3\n\
                        # HELP took Took.\n# TYPE took histogram\ntook_sum 0.5\ntook_count 1\n\
                        took_bucket{le=\"+Inf\"} 1\n";
        assert_eq!(prometheus(open_metrics), expected);
    }

    #[test]
    fn a_scraper_gets_what_it_asks_for_most_and_the_older_format_unasked() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,\
                            application/openmetrics-text;version=0.0.1;q=0.75,\
                            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(Some(prometheus_2)), Format::OpenMetrics);
        for other in [
            None,
            Some(""),
            Some("*/*"),
            Some("text/plain"),
            Some("text/html, application/xhtml+xml"),
            Some("application/openmetrics-text;q=0"),
            Some("application/openmetrics-text;q=0.4, text/plain;q=0.5"),
        ] {
            assert_eq!(Format::accepted(other), Format::Prometheus, "{other:?}");
        }
    }
}
