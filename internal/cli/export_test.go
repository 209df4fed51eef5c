package cli

import (
	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/internal/paths"
)

// Root returns all commands.
func Root() *cobra.Command { return (&program{dirs: paths.At("")}).root() }
