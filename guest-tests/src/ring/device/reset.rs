//! Setting queues up, at the start and each time a guest reboots.

use std::sync::Arc;

use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::{Device, DeviceConfig, Error};
use crate::ring::queue::{Queue, QueueConfig};

impl Device {
    /// What QEMU does when its guest reboots: stops every queue, and starts new ones on the same
    /// connection, in the same memory, with the features that there are. Nobody waits for what is
    /// in flight.
    pub fn reset(&mut self, config: &DeviceConfig) -> Result<Vec<Queue>, Error> {
        for index in 0..self.rings.len() {
            self.stop_queue(index)?;
        }
        self.set_up(config.request_queues + 1, config.queue_size)
    }

    /// Makes rings and starts them.
    pub(super) fn set_up(&mut self, count: usize, size: u16) -> Result<Vec<Queue>, Error> {
        let config = QueueConfig {
            size,
            event_idx: self.features & 1 << VIRTIO_RING_F_EVENT_IDX != 0,
            indirect: self.features & 1 << VIRTIO_RING_F_INDIRECT_DESC != 0,
        };
        let queues = (0..count)
            .map(|_| Queue::new(&self.memory, config))
            .collect::<Result<Vec<_>, _>>()?;
        self.rings = queues.iter().map(|q| Arc::clone(q.ring())).collect();
        self.hand_over(&vec![0; count])?;
        Ok(queues)
    }
}
