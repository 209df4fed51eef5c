package lab

import (
	"context"
	"fmt"
	"os"

	"github.com/tasuki-ha/tasuki/internal/lab/ledger"
	"github.com/tasuki-ha/tasuki/internal/lab/machine"
)

// MachineInit is `tasuki lab machine-init NAME`, the first process of a
// machine. It returns only if the machine cannot start or go on.
func MachineInit(ctx context.Context, _ []string) error {
	// A signal ends the context of a program, but no machine.
	return machine.Init(context.WithoutCancel(ctx))
}

// Hidden runs the hidden commands of the program that is the lab's Binary,
// `lab supervisor DIR`, `lab machine-init NAME`, `lab front DISK` and `lab ledger
// FILE ADDRESS`; args are those behind the program's name. It says whether it was
// one of them. main, and the TestMain of a package that starts labs, calls it
// first.
func Hidden(ctx context.Context, args []string) (was bool, err error) {
	if len(args) < 2 || args[0] != "lab" {
		return false, nil
	}
	switch args[1] {
	case "machine-init":
		return true, MachineInit(ctx, args[2:])
	case "supervisor":
		if len(args) != 3 {
			return true, fmt.Errorf("lab supervisor needs the lab's directory; only tasuki lab up starts it")
		}
		return true, Supervise(ctx, args[2])
	case "front":
		if len(args) != 3 {
			return true, fmt.Errorf("lab front needs a disk")
		}
		return true, Front(ctx, args[2], os.Stdout)
	case "ledger":
		if len(args) != 4 {
			return true, fmt.Errorf("lab ledger needs a file and an address, such as /data/journal :8090")
		}
		node, err := os.Hostname()
		if err != nil {
			return true, err
		}
		return true, ledger.Serve(ctx, args[2], args[3], node, os.Stdout)
	}
	return false, nil
}
