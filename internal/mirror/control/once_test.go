package control

import (
	"context"
	"errors"
	"os/exec"
	"testing"
)

func TestOnce(t *testing.T) {
	var got []int
	if err := Once(t.Context(), exec.Command("echo", "[1,2]"), &got); err != nil || len(got) != 2 {
		t.Errorf("%v %v", got, err)
	}
	if err := Once(t.Context(), exec.Command("echo", "no JSON"), &got); err == nil {
		t.Error("what is no JSON was taken")
	}
	says := exec.Command("sh", "-c", "echo level=WARN >&2; echo error: the disk is gone >&2; exit 1")
	if err := Once(t.Context(), says, &got); err == nil || err.Error() != "the disk is gone" {
		t.Error(err)
	}
	if err := Once(t.Context(), exec.Command("false"), &got); err == nil || err.Error() != "exit status 1" {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Once(ctx, exec.Command("sleep", "1000"), &got); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
