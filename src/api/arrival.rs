//! The arrival of a request: a body that stops coming does not hold its handler for ever.
//!
//! Only for calls with one request. In a stream of requests silence means something.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;

/// A request of which nothing comes for so long is refused.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The body of a request.
#[derive(Debug)]
pub(super) struct Arriving {
    body: Body,
    silence_max: Duration,
    /// Ends the silence that lasts now.
    limit: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    pub(super) fn new(body: Body, silence_max: Duration) -> Self {
        Self { body, silence_max, limit: None }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.limit = None;
            return Poll::Ready(frame);
        }
        let silence_max = self.silence_max;
        let limit = self.limit.get_or_insert_with(|| Box::pin(tokio::time::sleep(silence_max)));
        ready!(limit.as_mut().poll(cx));
        Poll::Ready(Some(Err(Status::deadline_exceeded("the request did not arrive in time"))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Sends its pieces, each after a pause.
    struct Slow {
        pieces: usize,
        pause: Pin<Box<Sleep>>,
    }

    impl Slow {
        fn body(pieces: usize, pause: Duration) -> Body {
            Body::new(Self { pieces, pause: Box::pin(tokio::time::sleep(pause)) })
        }
    }

    impl HttpBody for Slow {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            ready!(self.pause.as_mut().poll(cx));
            if self.pieces == 0 {
                return Poll::Ready(None);
            }
            self.pieces -= 1;
            let next = tokio::time::Instant::now() + Duration::from_millis(5);
            self.pause.as_mut().reset(next);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    async fn next(body: &mut Arriving) -> Option<Result<Frame<Bytes>, Status>> {
        poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
    }

    #[tokio::test]
    async fn slow_requests_arrive() {
        let mut body = Arriving::new(Slow::body(3, Duration::from_millis(5)), SILENCE_MAX);
        for _ in 0..3 {
            assert!(next(&mut body).await.is_some_and(|frame| frame.is_ok()));
        }
        assert!(next(&mut body).await.is_none());
    }

    #[tokio::test]
    async fn requests_that_stop_coming_are_refused() {
        let never = Duration::from_hours(1);
        let mut body = Arriving::new(Slow::body(1, never), Duration::from_millis(5));
        let refused = next(&mut body).await.expect("an answer").expect_err("nothing came");
        assert_eq!(refused.code(), tonic::Code::DeadlineExceeded);
    }
}
