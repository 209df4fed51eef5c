package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/api"
	"github.com/tasuki-ha/tasuki/internal/client"
)

// Exit codes.
const (
	ExitOK          = 0
	ExitFailed      = 1 // failed, or refused
	ExitUsage       = 2
	ExitUnreachable = 3 // no daemon answers
	ExitTimedOut    = 4
)

const exitText = `Every command ends with one of these codes:

  0  done
  1  it failed, or was refused; the reason and a hint are on standard error
  2  the command line cannot be understood
  3  no daemon answers
  4  it was not done in time; it may still be under way`

// usageError is a command line that cannot be understood.
type usageError struct{ error }

// noVerb is what a command of commands does by itself.
func noVerb(cmd *cobra.Command, a []string) error {
	if len(a) == 0 {
		return usageError{fmt.Errorf("%s needs a command", cmd.CommandPath())}
	}
	cmd.SuggestionsMinimumDistance = 2
	if meant := cmd.SuggestionsFor(a[0]); len(meant) > 0 {
		return &api.Error{Code: "usage", Message: fmt.Sprintf("%s has no command %q", cmd.CommandPath(), a[0]),
			Hint: "is it " + strings.Join(meant, " or ") + "? " + cmd.CommandPath() + " --help shows the commands"}
	}
	return usageError{fmt.Errorf("%s has no command %q", cmd.CommandPath(), a[0])}
}

// code prints what went wrong with a command and returns the exit code for it.
func (p *program) code(cmd *cobra.Command, err error) int {
	if err == nil {
		return ExitOK
	}
	var ours *exec.ExitError // a program that we ran for ourselves
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) && !errors.As(err, &ours) {
		return exit.ExitCode() // of a command that ran in a lab; it has said what it had to say
	}
	e := explained(cmd, err)
	fmt.Fprintf(p.err, "error: %s\nhint: %s\n", e.Message, e.Hint)
	switch e.Code {
	case "usage":
		return ExitUsage
	case client.CodeUnreachable:
		return ExitUnreachable
	case "timed-out":
		return ExitTimedOut
	}
	return ExitFailed
}

// explained gives every error a code and a hint.
func explained(cmd *cobra.Command, err error) *api.Error {
	help := cmd.CommandPath() + " --help shows what it needs"
	var use usageError
	var e *api.Error
	switch {
	case errors.As(err, &e):
		return &api.Error{Code: e.Code, Message: e.Message, Hint: cmp.Or(e.Hint, help)}
	case errors.As(err, &use):
		hint := "usage: " + cmd.UseLine()
		if cmd.HasSubCommands() {
			hint = cmd.CommandPath() + " --help shows the commands"
		}
		return &api.Error{Code: "usage", Message: err.Error(), Hint: hint}
	case errors.Is(err, context.Canceled) && cmd.Context() != nil && cmd.Context().Err() != nil:
		return &api.Error{Code: "interrupted", Message: "interrupted", Hint: "what was begun goes on: tasuki status"}
	}
	return &api.Error{Code: "failed", Message: err.Error(), Hint: help}
}
