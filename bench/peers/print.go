package main

import (
	"fmt"
	"io"
	"strings"
)

// print writes the report as Markdown, ready for RESULTS.md.
func (r *Report) print(w io.Writer) {
	m := &r.Machine
	fmt.Fprintf(w, "%s, with `%s`\n\n", r.Date, r.Command)
	fmt.Fprintf(w, "- Machine: %s, %d cores, %s; multiply-adds of %d threads at once %.0f GFLOP/s", m.CPU, m.Cores, m.System, m.Threads, m.Peak)
	if m.Load != "" {
		fmt.Fprintf(w, "; load %s", m.Load)
	}
	fmt.Fprintf(w, "\n- Versions: %s", m.Go)
	for _, n := range r.Names {
		fmt.Fprintf(w, ", %s", n)
	}
	fmt.Fprintf(w, "\n\n| shape | pass | peer | ratio | 10-90 %% | ms | peer ms | GFLOP/s | of peak | rounds | difference | kernels | peer's kernels |\n")
	fmt.Fprintln(w, "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---|")
	for _, x := range r.Rows {
		fmt.Fprintf(w, "| %s | %s | %s | %.2f | %.2f-%.2f | %s | %s | %.0f | %.0f %% | %s | %s | %s | %s |\n",
			x.Shape, x.Pass, x.Peer, x.Ratio, x.RatioLow, x.RatioHigh, milliseconds(x.Ms), milliseconds(x.PeerMs),
			x.GFlops, 100*x.PeakShare, x.rounds(), x.agreement(), x.Uses, x.PeerUses)
	}
	if len(r.Memory) > 0 {
		fmt.Fprintf(w, "\n| shape | memory of training | MB |\n|---|---|---:|\n")
	}
	for _, x := range r.Memory {
		fmt.Fprintf(w, "| %s | %s | %.0f |\n", x.Shape, x.Name, float64(x.Bytes)/1e6)
	}
	if len(r.Missing) > 0 {
		fmt.Fprintf(w, "\nLeft out:\n\n")
	}
	for _, x := range r.Missing {
		fmt.Fprintf(w, "- %s of %s: %s\n", x.Peer, strings.Join(x.From, ", "), x.Why)
	}
}

func milliseconds(x float64) string {
	switch {
	case x < 1:
		return fmt.Sprintf("%.3f", x)
	case x < 10:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.1f", x)
}

// rounds formats the number of rounds that count and, if the machine was
// disturbed, that of the others.
func (r *Row) rounds() string {
	switch {
	case !r.Steady:
		return fmt.Sprintf("%d, unsteady", r.Rounds)
	case r.Rejected > 0:
		return fmt.Sprintf("%d of %d", r.Rounds, r.Rounds+r.Rejected)
	}
	return fmt.Sprint(r.Rounds)
}

func (r *Row) agreement() string {
	if !r.Agrees {
		return fmt.Sprintf("**%.1e**", r.Difference)
	}
	return fmt.Sprintf("%.1e", r.Difference)
}
