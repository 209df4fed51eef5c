package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tasuki-ha/tasuki/internal/httpapi"
)

func (p *program) api() *cobra.Command {
	c := &cobra.Command{Use: "api", Short: "Show what the API is", Long: "Every node serves the API by HTTPS, for the whole cluster. docs/api.md explains it\nwith examples; tasuki token add makes what a script shows with every call.",
		Example: "  tasuki api openapi"}
	var yaml bool
	openapi := &cobra.Command{Use: "openapi", Short: "Print the description of the API: OpenAPI 3.1", Args: args(0, 0, "no arguments"),
		Long:    "Print the description of the API of this version, OpenAPI 3.1, as JSON or YAML:\nfor generators of clients, and for people. It needs no daemon. A daemon serves its\nown at /openapi.json and /openapi.yaml, for callers with the role read.",
		Example: "  tasuki api openapi > openapi.json\n  tasuki api openapi --yaml",
		RunE: func(*cobra.Command, []string) error {
			doc, err := httpapi.Description(p.hooks.Version, yaml)
			if err != nil {
				return fmt.Errorf("write the description of the API: %w", err)
			}
			_, err = fmt.Fprintf(p.out, "%s\n", doc)
			return err
		}}
	openapi.Flags().BoolVar(&yaml, "yaml", false, "as YAML")
	c.AddCommand(openapi)
	return c
}
