//! What the supervisor tells while the guest runs. See `control`.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use abi::poll::PollEvents;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use base::WaitQueue;
use rustix::net::RecvFlags;

use super::console::Console;
use crate::control::{MAX_LEN, Order};
use crate::executor::notify::wait_until;
use crate::kernel::Kernel;
use crate::signal::send;
use crate::task::exit::INIT;

/// Obeys orders for as long as the sandbox lives.
pub fn listen(kernel: &Arc<Kernel>, control: OwnedFd, console: Option<Arc<Console>>) {
    let kernel_of_task = Arc::clone(kernel);
    kernel.executor.spawn(async move { obey(&kernel_of_task, Arc::new(control), console).await });
}

async fn obey(kernel: &Arc<Kernel>, control: Arc<OwnedFd>, console: Option<Arc<Console>>) {
    let queue = WaitQueue::new();
    let watched = kernel.reactor.register(Arc::clone(&control), queue.clone(), PollEvents::IN);
    let Ok(_watch) = watched else { return };
    loop {
        let received = wait_until(&queue, PollEvents::IN, || receive(&control)).await;
        match received {
            Some(Order::Signal(number)) => deliver(kernel, number),
            Some(Order::Resize { rows, cols }) => {
                if let Some(console) = &console {
                    console.resize(rows, cols);
                }
            }
            Some(Order::Processor(answers)) => kernel.platform.tell_processor(&answers),
            Some(Order::Go) => {}
            // The supervisor is gone; the host ends us with it.
            None => return,
        }
    }
}

/// `Some(None)` at the end of the connection; orders that are none are left out.
fn receive(control: &OwnedFd) -> Option<Option<Order>> {
    loop {
        let mut datagram = vec![0; MAX_LEN];
        match rustix::net::recv(control, &mut datagram[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Some(None),
            Ok((length, _)) => {
                if let Some(order) = Order::decode(datagram.get(..length).unwrap_or_default()) {
                    return Some(Some(order));
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return None,
            Err(_) => return Some(None),
        }
    }
}

fn deliver(kernel: &Kernel, number: u8) {
    let Some(signal) = Signal::new(u64::from(number)) else { return };
    if let Some(group) = kernel.tasks.group(INIT) {
        let _ = send::send_to_group(&group, SigInfo::kernel(signal));
    }
}
