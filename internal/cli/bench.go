package cli

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/internal/bench"
)

func (a *app) benchCommand() *cobra.Command {
	var o bench.Options
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine, and how near to its limits the kernels come",
		Long: `Measures the machine first: multiply-adds in registers, and reading from the
caches and from memory. Then LSTM networks of several shapes, forward and as whole
training steps, a GRU and a simple RNN, and a large matrix product, each with one
thread and with all.

The share is the least time that the machine's limits allow divided by the time
taken; the limit is the multiply-adds, or the level of memory that the weights must
come from. Close other programs first: the shares assume an idle machine.`,
		Example: `  carousel bench --quick
  carousel bench --json > bench.json
  CAROUSEL_SIMD=avx2 carousel bench --quick`,
		GroupID: groupAbout,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if isTerminal(a.stderr) {
				o.Note = func(name, pass string) { a.note("measuring %s %s", name, pass) }
			}
			r, err := bench.Run(c.Context(), &o)
			if err != nil {
				return err
			}
			return a.emit(r, func(w io.Writer) { printBench(w, r) })
		},
	}
	c.Flags().BoolVar(&o.Quick, "quick", false, "take some 20 seconds in place of some minutes")
	return c
}

func printBench(w io.Writer, r *bench.Report) {
	m := &r.Machine
	fmt.Fprintf(w, "%s, %s, %s, %s\n\n", m.CPU, m.System, m.Go, m.Device)
	var rows [][]string
	for _, x := range m.Rates {
		rows = append(rows, []string{strconv.Itoa(x.Threads), number(x.Peak), number(x.L2), levelRate(x.L3), number(x.Memory)})
	}
	printTable(w, []string{"threads", "FMA GFLOP/s", "L2 GB/s", "L3 GB/s", "memory GB/s"}, rows)
	fmt.Fprintln(w)
	rows = nil
	for _, v := range m.Vector {
		rows = append(rows, []string{v.Name, number(v.Rate)})
	}
	printTable(w, []string{"one thread", "10^9 elements/s"}, rows)
	fmt.Fprintln(w)
	printTable(w, []string{"task", "cell", "pass", "threads", "ms", "10 %", "90 %", "GFLOP/s", "share", "of", "allocations"}, benchRows(r.Results))
	if m.PeakMoved > 0.1 {
		fmt.Fprintf(w, "\nThe machine's peak moved by %.0f %% meanwhile, so the shares are rough: other programs were running, or its clock changed.\n", 100*m.PeakMoved)
	}
}

func benchRows(results []bench.Result) [][]string {
	var rows [][]string
	for _, x := range results {
		rows = append(rows, []string{
			x.Name, x.Cell, x.Pass, strconv.Itoa(x.Threads), number(x.Ms), number(x.MsLow), number(x.MsHigh),
			number(x.GFlops), fmt.Sprintf("%.0f %%", 100*x.PeakShare), x.Bound, strconv.Itoa(x.Allocs),
		})
	}
	return rows
}

// levelRate is the rate of a level of memory that may not be there.
func levelRate(x float64) string {
	if x == 0 {
		return "-"
	}
	return number(x)
}
