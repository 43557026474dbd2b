//! A client that nobody here wrote: the crate `cloud-hypervisor-client`, generated from Cloud Hypervisor's own description.

use cloud_hypervisor_client::apis::DefaultApi as _;
use cloud_hypervisor_client::models::{VmConfig, VmState};
use cloud_hypervisor_client::socket_based_api_client;
use tdvisor_service::vm::{ExitReason, Facts};

use crate::place::{Place, hello, waiting_guest};

fn vm(config: serde_json::Value) -> VmConfig {
    serde_json::from_value(config).expect("a configuration of the client's types")
}

#[test]
fn it_creates_boots_asks_counts_reboots_and_ends_a_td() {
    let mut place = Place::new("crate-client");
    let client = socket_based_api_client(place.socket());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let ping = client.vmm_ping_get().await.expect("a ping");
        assert!(ping.features.expect("features").contains(&"tdx".to_owned()));
        assert!(client.vm_info_get().await.is_err(), "there is no VM");
        client.create_vm(vm(waiting_guest())).await.expect("a VM");
        assert_eq!(client.vm_info_get().await.expect("info").state, VmState::Created);
        client.boot_vm().await.expect("it runs");
        let info = client.vm_info_get().await.expect("info");
        assert_eq!((info.state, info.memory_actual_size), (VmState::Running, Some(64 << 20)));
        assert_eq!(info.config.platform.and_then(|platform| platform.tdx), Some(true));
        let counters = client.vm_counters_get().await.expect("counters");
        assert_eq!(counters["_seamcalls"]["TDH.MNG.CREATE"], 1);
        client.reboot_vm().await.expect("it runs again");
        client.shutdown_vm().await.expect("it has ended");
        client.delete_vm().await.expect("it is forgotten");
        client.create_vm(vm(hello())).await.expect("another VM");
        client.boot_vm().await.expect("it runs");
    });
    let ExitReason::GuestEnded(end) = place.finish() else { panic!("the guest ends first") };
    let Facts::Emulated(report) = end.facts else { panic!("of the emulated machine") };
    assert_eq!(report.mrtd, Some(end.predicted.0));
}
