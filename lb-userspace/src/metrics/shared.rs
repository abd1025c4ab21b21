//! One rendering for all requests that wait for one.

use std::{collections::BTreeMap, future::Future};

use hyper::body::Bytes;
use tokio::{sync::Mutex, time::Instant};

/// Renderings in their forms, one made after the other.
#[derive(Debug)]
pub(super) struct Shared<F>(Mutex<BTreeMap<F, Rendering>>);

#[derive(Debug)]
struct Rendering {
    begun: Instant,
    bytes: Bytes,
}

impl<F> Default for Shared<F> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<F: Ord + Copy> Shared<F> {
    /// The rendering in a form: one that began after this call, by whichever request, so that it shows all that had happened by then.
    /// Cancel-safe.
    ///
    /// # Errors
    /// Of `render`, for its own request alone.
    pub(super) async fn get<E, R: Future<Output = Result<Bytes, E>>>(
        &self,
        form: F,
        render: impl FnOnce() -> R,
    ) -> Result<Bytes, E> {
        let asked = Instant::now();
        let mut latest = self.0.lock().await;
        if let Some(rendering) = latest.get(&form).filter(|rendering| rendering.begun >= asked) {
            return Ok(rendering.bytes.clone());
        }
        // Requests that wait want one that begins from now on.
        latest.retain(|_, rendering| rendering.begun >= asked);
        let begun = Instant::now();
        let bytes = render().await?;
        let rendering = Rendering {
            begun,
            bytes: bytes.clone(),
        };
        latest.insert(form, rendering);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use tokio::sync::Semaphore;

    use super::*;

    /// Renderings so far; each takes a permit.
    #[derive(Clone)]
    struct Renderer {
        shared: Arc<Shared<bool>>,
        begun: Arc<AtomicUsize>,
        permits: Arc<Semaphore>,
    }

    impl Renderer {
        async fn get(self, form: bool) -> Result<Bytes, ()> {
            let Self {
                shared,
                begun,
                permits,
            } = self;
            let render = async || {
                let number = begun.fetch_add(1, Relaxed) + 1;
                permits.acquire().await.unwrap().forget();
                // The second one fails.
                (number != 2).then(|| Bytes::from(number.to_string())).ok_or(())
            };
            shared.get(form, render).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_wait_share_a_rendering_that_began_after_them() {
        let renderer = Renderer {
            shared: Arc::default(),
            begun: Arc::default(),
            permits: Arc::new(Semaphore::new(0)),
        };
        let ask = |form| tokio::spawn(renderer.clone().get(form));
        let first = ask(false);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let waiting: Vec<_> = (0..10).map(|_| ask(false)).collect();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        renderer.permits.add_permits(10);
        assert_eq!(first.await.unwrap(), Ok("1".into()));
        let mut answers = Vec::new();
        for request in waiting {
            answers.push(request.await.unwrap());
        }
        // The first of them finds that it fails, the next one renders for all others.
        let mut expected = vec![Ok(Bytes::from("3")); 10];
        expected[0] = Err(());
        assert_eq!(answers, expected);
        assert_eq!(renderer.begun.load(Relaxed), 3);

        let other = ask(true).await.unwrap();
        assert_eq!(other, Ok("4".into()), "another form is another rendering");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let later = ask(true);
        assert_eq!(later.await.unwrap(), Ok("5".into()), "the former one is old");
    }
}
