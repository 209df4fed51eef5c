// Package guest switches the power of the virtual machines on this host, which
// makes the host their fence device.
//
// A guest is reported as off only with proof: what could not be asked, or gives
// an answer that leaves a doubt, is an error. The proof depends on who runs the
// guest:
//
//   - libvirt: the domain is defined here, libvirt says that it is shut off, it
//     was not migrated to another host, and no saved memory waits for it.
//   - QMP: nobody listens at the socket of the QEMU, and the socket is still
//     there. A socket that is not there proves nothing.
//   - lab: the lab's supervisor says so.
package guest
