package cli

import (
	"cmp"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/internal/bench"
	"github.com/carousel-ml/carousel/report"
)

func (a *app) benchCommand() *cobra.Command {
	var o bench.Options
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine, and how close the kernels come to its limits",
		Long: `Measures the machine first: multiply-adds in registers, and reading from the
caches and from memory. Then LSTM networks of several shapes, forward and as whole
training steps, a GRU and a simple RNN, and a large matrix product, each with one
thread and with all.

The share is the least time that the machine's limits allow divided by the time
taken; the limit is the multiply-adds, or the level of memory that the weights must
come from. Close other programs first: the shares assume an idle machine.

Last, the same passes on other numbers, with all threads and in turn, which should
take the same time. Where they do not, the numbers are as a rule subnormal (below
1.2e-38), at which many processors are slow:
  vanish    a training step whose gradient enters at the last of 336 or 2,000
            steps, and of which each step lets a share (keep) pass, against one
            with a gradient at every step
  constant  all weights of an LSTM one number and all its inputs another: the
            slowest pair of sixteen against the fastest
  adam      a step of Adam after 3,000 steps on a table of 30,000 rows, few of which
            have a gradient, against one of the first (the old moments are made
            on 4 of its 400 columns, and repeated)
The bar is what the ratio of the times should stay below. Over 2,000 steps a part of
the combinations of gates and sizes of loss is run, with --numbers all; with --quick
336 steps, gates of 0.6 and losses of 1 and 1e-8, and four pairs of the constants.

With --device cuda the networks and the product alone are timed, on the GPU.`,
		Example: `  carousel bench --quick
  carousel bench --json > bench.json
  carousel bench --numbers
  CAROUSEL_SIMD=avx2 carousel bench --quick`,
		GroupID: groupAbout,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if isTerminal(a.stderr) {
				o.Note = func(name, pass string) { a.note("measuring %s %s", name, pass) }
			}
			if o.Device, err = a.device(); err != nil {
				return err
			}
			r, err := bench.Run(c.Context(), &o)
			if err != nil {
				return err
			}
			return a.emit("bench", r, func(w io.Writer) { printBench(w, r) })
		},
	}
	a.computes.bind(c.Flags())
	c.Flags().BoolVar(&o.Quick, "quick", false, "take about 25 seconds instead of a few minutes")
	c.Flags().BoolVar(&o.Numbers, "numbers", false, "the same passes on other numbers alone, in full unless --quick")
	return c
}

func printBench(w io.Writer, r *bench.Report) {
	m := &r.Machine
	fmt.Fprintf(w, "%s, %s, %s, %s\n\n", m.CPU, m.System, m.Go, m.Device)
	var rows [][]string
	if len(m.Rates) > 0 {
		for _, x := range m.Rates {
			rows = append(rows, []string{strconv.Itoa(x.Threads), report.Number(x.Peak), report.Number(x.L2), levelRate(x.L3), report.Number(x.Memory)})
		}
		printTable(w, []string{"threads", "FMA GFLOP/s", "L2 GB/s", "L3 GB/s", "memory GB/s"}, rows)
		fmt.Fprintln(w)
		rows = nil
		for _, v := range m.Vector {
			rows = append(rows, []string{v.Name, report.Number(v.Rate)})
		}
		printTable(w, []string{"one thread", "10^9 elements/s"}, rows)
		fmt.Fprintln(w)
	}
	if len(r.Results) > 0 {
		printTable(w, []string{"task", "cell", "pass", "threads", "ms", "10 %", "90 %", "GFLOP/s", "share", "of", "allocations"}, benchRows(r.Results))
		fmt.Fprintln(w)
	}
	if len(r.Numbers) == 0 {
		return
	}
	fmt.Fprintln(w, "The same passes on other numbers:")
	printTable(w, []string{"task", "cell", "pass", "steps", "numbers", "threads", "ms", "ratio", "10 %", "90 %", "bar", "rounds"}, numberRows(r.Numbers))
	if m.PeakMoved > 0.1 {
		fmt.Fprintf(w, "\nThe machine's peak moved by %.0f %% meanwhile, so the shares are rough: other programs were running, or its clock changed.\n", 100*m.PeakMoved)
	}
}

func benchRows(results []bench.Result) [][]string {
	var rows [][]string
	for _, x := range results {
		rows = append(rows, []string{
			x.Name, x.Cell, x.Pass, strconv.Itoa(x.Threads), report.Number(x.Ms), report.Number(x.MsLow), report.Number(x.MsHigh),
			report.Number(x.GFlops), shareOf(&x), cmp.Or(x.Bound, "-"), strconv.Itoa(x.Allocs),
		})
	}
	return rows
}

// shareOf is the share of a limit that was measured.
func shareOf(x *bench.Result) string {
	if x.Bound == "" {
		return "-"
	}
	return fmt.Sprintf("%.0f %%", 100*x.PeakShare)
}

func numberRows(numbers []bench.Number) [][]string {
	var rows [][]string
	for _, x := range numbers {
		on := fmt.Sprintf("keep %g, loss %g", x.Keep, x.Loss)
		switch {
		case x.Weights != 0:
			on = fmt.Sprintf("weights %g, inputs %g", x.Weights, x.Inputs)
		case x.Keep == 0:
			on = "few rows"
		}
		rounds := strconv.Itoa(x.Rounds)
		if !x.Steady {
			rounds += ", unsteady"
		}
		rows = append(rows, []string{
			x.Name, x.Cell, x.Pass, strconv.Itoa(x.Steps), on, strconv.Itoa(x.Threads), report.Number(x.Ms),
			fmt.Sprintf("%.3f", x.Ratio), fmt.Sprintf("%.3f", x.RatioLow), fmt.Sprintf("%.3f", x.RatioHigh), fmt.Sprint(x.Bar), rounds,
		})
	}
	return rows
}

// levelRate is the rate of a level of memory; not every machine has each level.
func levelRate(x float64) string {
	if x == 0 {
		return "-"
	}
	return report.Number(x)
}
