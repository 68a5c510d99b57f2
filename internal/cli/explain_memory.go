package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/internal/cli/recipe"
	"github.com/carousel-ml/carousel/internal/memory"
	"github.com/carousel-ml/carousel/report"
)

// memoryTable is the result of explain memory.
type memoryTable struct {
	Rows []memory.Row `json:"rows"` // one for each problem and cell
	Note string       `json:"note"` // what the table leaves out, and why
}

// digits explains why a row of the usual tables is missing.
const digits = "Sequential MNIST is not part of the table: it needs the images, and no data comes with carousel."

func (a *app) explainMemoryCommand() *cobra.Command {
	trial := memory.DefaultTrial()
	var quick, resume bool
	var file, out string
	var pairs []string
	s := recipe.Of(&trial).Without("cell") // the cells are compared
	c := &cobra.Command{
		Use:   "memory",
		Short: "Train networks on the memory benchmarks, and print the table",
		Long: `Trains plain RNNs, LSTMs and GRUs on the field's benchmarks of memory, whose
sequences are made up from the seed, and prints how many solve them:

  adding  the sum of two marked numbers among many (mean squared error below 0.01;
          always answering 1 gives 0.167)
  copy    ten symbols, to be repeated after a gap (99 % of them; without memory
          10 ln 8 / (length + 20) nats a step)
  reber   strings of the embedded Reber grammar: at each step all symbols that may
          follow, and before the end the one that came at the beginning (all of 1,000
          strings right throughout)

Without settings it runs all published sizes, for hours; --quick runs short ones
in a minute. With settings, or a recipe, it runs that problem alone. --out keeps the
networks: explain gradients looks into them, and --resume continues after Ctrl-C.`,
		Example: `  carousel explain memory --quick
  carousel explain memory --problem adding --length 200 --cells lstm,gru --hidden 64 --out adding
  carousel explain memory --config recipes/memory_copy_100.yaml
  carousel explain gradients adding/adding-200-lstm-1`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := s.Resolve(file, pairs); err != nil {
				return misusef("%v", err)
			}
			trials := []memory.Trial{trial}
			if !s.Given() && file == "" && pairs == nil {
				trials = memory.Suite(quick)
			} else if quick {
				return misusef("--quick runs problems of its own; leave it out, or the settings")
			}
			if c.Flags().Changed("seed") {
				for i := range trials {
					trials[i].Seed = a.seed
				}
			}
			ctx, stop := a.catchInterrupt(c.Context())
			defer stop()
			return a.explainMemory(ctx, trials, out, resume)
		},
	}
	s.Bind(c.Flags(), "seed")
	f := c.Flags()
	f.BoolVar(&quick, "quick", false, "short problems, a minute in all")
	f.StringVar(&file, "config", "", "recipe `file` in YAML, one setting a line")
	f.StringArrayVar(&pairs, "set", nil, "`name=value` of any setting; may be repeated")
	f.StringVar(&out, "out", "", "`directory` for the networks and their checkpoints")
	f.BoolVar(&resume, "resume", false, "continue with the networks in --out")
	for _, name := range []string{"quick", "config", "set", "out", "resume"} {
		f.Lookup(name).Annotations = map[string][]string{recipe.Group: {"Files"}}
	}
	return c
}

func (a *app) explainMemory(ctx context.Context, trials []memory.Trial, out string, resume bool) error {
	for i := range trials {
		if err := trials[i].Validate(); err != nil {
			return err
		}
	}
	if err := checkNetworks(out, resume); err != nil {
		return err
	}
	table := memoryTable{Note: digits}
	for i := range trials {
		rows, err := trials[i].Run(ctx, &memory.TrialOptions{
			Dir: out, Resume: resume, Progress: a.progress(),
			Note: func(text string) { a.note("%s", text) },
		})
		if errors.Is(err, context.Canceled) {
			text := "interrupted; nothing was kept, because --out is not given"
			if out != "" {
				text = "interrupted; to continue: " + a.resumeCommand()
			}
			return &interrupted{text}
		}
		if err != nil {
			return err
		}
		table.Rows = append(table.Rows, rows...)
	}
	return a.emit("explain.memory", &table, func(w io.Writer) { printMemory(w, &table) })
}

// checkNetworks returns an error if --out holds other files than networks.
func checkNetworks(out string, resume bool) error {
	if out == "" {
		if resume {
			return misusef("--resume needs --out, the directory of the networks")
		}
		return nil
	}
	entries, err := os.ReadDir(out)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return misusef("--out %s: want a directory: %v", out, plainFileError(err))
	case len(entries) > 0 && !resume:
		return misusef("--out %s is not empty; give a directory that is new or empty, or --resume to continue with the networks in it", out)
	}
	return nil
}

func printMemory(w io.Writer, t *memoryTable) {
	var rows [][]string
	for _, r := range t.Rows {
		solved := "no"
		switch {
		case r.Runs > 1:
			solved = fmt.Sprintf("%d of %d", r.Solved, r.Runs)
		case r.Solved == 1:
			solved = "yes"
		}
		rows = append(rows, []string{r.Problem, report.Count(r.Length), strings.ToUpper(r.Cell), report.Count(r.Units), report.Count(r.Parameters), solved,
			report.Count(r.Steps), report.Count(r.Sequences), report.Number(r.Error), fmt.Sprintf("%.0f %%", 100*r.Right), report.Number(r.Baseline), fmt.Sprintf("%.0f", r.Seconds)})
	}
	printTable(w, []string{"", "length", "cell", "units", "weights", "solved", "steps", "sequences", "error", "right", "without memory", "seconds"}, rows)
	fmt.Fprintf(w, "\nError is the mean squared error (adding), nats a step (copy) or the share of strings not right throughout (reber), on 1,000 new sequences.\n%s\n", t.Note)
}
