package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/wasmshim/containerd-shim-wasm/internal/text"
)

// Print writes the results as a table for people, each mend below what it mends.
func Print(w io.Writer, results []Result) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CHECK\tSTATE\tFOUND")
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%s\t%s\n", r.Check, r.State, oneLine(r.Found))
		if r.Mend != "" {
			fmt.Fprintf(table, "\t\t-> %s\n", oneLine(r.Mend))
		}
	}
	return table.Flush()
}

func oneLine(s string) string { return text.Printable(strings.Join(strings.Fields(s), " ")) }

// PrintJSON writes the results for machines.
func PrintJSON(w io.Writer, results []Result) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(results)
}
