package cli

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/internal/yaml"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tune"
	"github.com/carousel-ml/carousel/tune/store"
	"github.com/carousel-ml/carousel/tune/trials"
)

// openedStudy is a study with all that is known of it.
type openedStudy struct {
	*tune.Study
	store   tune.Store
	header  *tune.Header
	address string // as it is shown
	list    []*tune.Record
	verdict *trials.Verdict // nil: the best trials have not been repeated
}

// openStudy opens the study of --study to look at it.
func (a *app) openStudy(ctx context.Context, address string) (*openedStudy, error) {
	if address == "" {
		return nil, wrongFlag("study", "--study is missing: the file of a study, or its address postgres://...")
	}
	kept, err := store.Open(ctx, address, false)
	if err != nil {
		return nil, err
	}
	study, header, err := tune.Load(ctx, kept)
	if err == nil && study == nil {
		err = wrongFlag("study", "--study %s has no study yet; carousel tune begins one", store.Public(address))
	}
	if err != nil {
		kept.Close()
		return nil, err
	}
	s := &openedStudy{Study: study, store: kept, header: header, address: store.Public(address)}
	return s, s.read(ctx)
}

// subject is what is tuned, in a line: a task, or a program.
func (s *openedStudy) subject() string {
	name, rest, _ := strings.Cut(s.header.Subject, "\n")
	if name == "command" {
		return oneLine(rest)
	}
	return name
}

// read takes in what has become of the study.
func (s *openedStudy) read(ctx context.Context) (err error) {
	if s.list, err = s.Trials(ctx); err != nil {
		return err
	}
	repeated, err := s.Repeats(ctx)
	if err == nil && len(repeated) > 0 {
		s.verdict, err = trials.Judge(ctx, s.Study)
		if none := trials.NoWinnerError(""); errors.As(err, &none) {
			err = nil // there is no verdict
		}
	}
	return err
}

// best are the trials that are worth a look, the best first: of one objective at most three, of several those of the front. The
// winner over several seeds comes before the others.
func (s *openedStudy) best() []*tune.Record {
	list := s.Best(s.list)
	if s.verdict != nil {
		winner := s.list[s.verdict.Winner]
		list = slices.Insert(slices.DeleteFunc(list, func(r *tune.Record) bool { return r == winner }), 0, winner)
	}
	if len(s.Options.Objectives) == 1 {
		list = list[:min(len(list), trials.Finalists)]
	}
	return list
}

// studySummary is the result of show, and part of that of tune.
type studySummary struct {
	Study      string             `json:"study"`             // where it is kept: a file, or an address
	Subject    string             `json:"subject"`           // what is tuned
	Objectives []tune.Objective   `json:"objectives"`        // what trials are compared by
	Sampler    string             `json:"sampler"`           // what proposed the trials
	Pruner     string             `json:"pruner"`            // what ended trials early
	Repeatable bool               `json:"repeatable"`        // the same study makes the same trials again
	Why        string             `json:"why,omitempty"`     // it is not repeatable
	States     map[tune.State]int `json:"states"`            // trials by state
	Steps      int                `json:"steps"`             // training steps of all trials
	Seconds    float64            `json:"seconds"`           // of work on all trials
	Best       []*tune.Record     `json:"best"`              // complete trials, the best first: of several objectives those that no other one is better than in all, else at most three
	Verdict    *trials.Verdict    `json:"verdict,omitempty"` // on the best ones, which were trained with several seeds
}

func (s *openedStudy) summary(ctx context.Context) (*studySummary, error) {
	var reasons []string
	for _, name := range []string{notRepeatable, trials.Ended} {
		text, err := s.store.Get(ctx, name)
		if err != nil {
			return nil, err
		}
		if name == trials.Ended && text != "" {
			text = "it was ended " + text
		}
		if text != "" {
			reasons = append(reasons, text)
		}
	}
	out := &studySummary{
		Study: s.address, Subject: s.subject(), Objectives: s.Options.Objectives, Sampler: s.Options.Sampler, Pruner: s.Options.Pruner,
		Repeatable: len(reasons) == 0, Why: strings.Join(reasons, "; "), States: map[tune.State]int{}, Best: s.best(), Verdict: s.verdict,
	}
	for _, r := range s.list {
		out.States[r.State]++
		out.Steps += r.Steps
		out.Seconds += r.Seconds
	}
	return out, nil
}

// stateOrder is that in which counts are printed.
var stateOrder = []tune.State{tune.Complete, tune.Pruned, tune.Paused, tune.Running, tune.Failed}

// countStates says how many trials there are in each state.
func countStates(states map[tune.State]int) string {
	var parts []string
	total := 0
	for _, state := range stateOrder {
		if n := states[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", report.Count(n), state))
			total += n
		}
	}
	if total == 0 {
		return "no trial yet"
	}
	return report.Plural(total, "trial") + ": " + strings.Join(parts, ", ")
}

// valueText writes a result of an objective.
func valueText(values []float64, i int) string {
	if i >= len(values) {
		return ""
	}
	return report.Number(values[i])
}

// results are the objectives of a trial as far as they are known: in the end, or where it stands.
func results(r *tune.Record) []float64 {
	if len(r.Results) == 0 && len(r.Curve) > 0 {
		return r.Curve[len(r.Curve)-1].Values
	}
	return r.Results
}

// paramText writes a value for people: numbers as short as they can be told apart.
func paramText(v any) string {
	if x, ok := v.(float64); ok {
		return strconv.FormatFloat(x, 'g', 4, 64)
	}
	return fmt.Sprint(v)
}

// paramsLine is the values of a trial in one line, in the order of the space.
func (s *openedStudy) paramsLine(r *tune.Record) string {
	var parts []string
	for _, p := range s.Space.Params {
		if v, has := r.Values[p.Name]; has {
			parts = append(parts, p.Name+" "+paramText(v))
		}
	}
	return strings.Join(parts, ", ")
}

// trialTable lists trials with their values.
func (s *openedStudy) trialTable(list []*tune.Record) *report.Table {
	t := &report.Table{Columns: []report.Column{{Name: "trial", Number: true}, {Name: "state"}}}
	number := func(name string) { t.Columns = append(t.Columns, report.Column{Name: name, Number: true}) }
	for _, o := range s.Options.Objectives {
		number(o.Name)
	}
	number("steps")
	for _, p := range s.Space.Params {
		t.Columns = append(t.Columns, report.Column{Name: p.Name, Number: p.Type != tune.Choice, Literal: true})
	}
	best := s.best()
	for _, r := range list {
		row := report.Row{Cells: []string{strconv.Itoa(r.Number), string(r.State)}, Best: len(best) > 0 && best[0] == r}
		for i := range s.Options.Objectives {
			row.Cells = append(row.Cells, valueText(results(r), i))
		}
		row.Cells = append(row.Cells, report.Count(r.Steps))
		for _, p := range s.Space.Params {
			text := ""
			if v, has := r.Values[p.Name]; has {
				text = paramText(v)
			}
			row.Cells = append(row.Cells, text)
		}
		t.Rows = append(t.Rows, row)
		t.Items = append(t.Items, r.Number)
	}
	return t
}

// finalistTable lists what was trained with several seeds; nil if nothing was.
func (s *openedStudy) finalistTable() *report.Table {
	if s.verdict == nil || !slices.ContainsFunc(s.verdict.Finalists, func(f trials.Finalist) bool { return len(f.Values) > 0 }) {
		return nil
	}
	t := report.NewTable("trial", s.Options.Objectives[0].Name, "deviation", "by seed", "as a trial")
	for _, f := range s.verdict.Finalists {
		name := strconv.Itoa(f.Trial)
		if f.Trial == s.verdict.Defaults {
			name += " (defaults)"
		}
		var scores []string
		for _, x := range f.Values {
			scores = append(scores, report.Number(x))
		}
		t.Add(name, report.Number(f.Mean), report.Number(f.SD), strings.Join(scores, ", "), report.Number(f.First))
		t.Rows[len(t.Rows)-1].Best = f.Trial == s.verdict.Winner
		t.Items = append(t.Items, f.Trial)
	}
	return t
}

// print writes a summary for people, whose table of trials is list.
func (s *openedStudy) print(w io.Writer, sum *studySummary, list []*tune.Record) {
	fmt.Fprintf(w, "%s\n%s, in %s\n", sum.Subject, countStates(sum.States), sum.Study)
	if len(list) > 0 {
		fmt.Fprintln(w)
		s.trialTable(list).Print(w)
	}
	if t := s.finalistTable(); t != nil {
		fmt.Fprintf(w, "\nThe best trials and the defaults, trained with %s each\n\n", report.Plural(trials.Seeds, "further seed"))
		t.Print(w)
	}
	if sum.Verdict != nil {
		fmt.Fprintf(w, "\n%s\n", sum.Verdict.Text)
	} else if len(sum.Best) > 0 {
		fmt.Fprintf(w, "\nThe best trial is %d; the noise of the seed is not known yet.\n", sum.Best[0].Number)
	}
	if !sum.Repeatable {
		fmt.Fprintf(w, "Note: this study cannot be repeated: %s\n", sum.Why)
	}
}

// ofStudy gives a command --study, and do the study that it names.
func (a *app) ofStudy(c *cobra.Command, do func(ctx context.Context, s *openedStudy) error) *cobra.Command {
	address := c.Flags().String("study", "", "`file` of the study, or its address postgres://...")
	c.Args = noArgs
	c.RunE = func(c *cobra.Command, _ []string) error {
		s, err := a.openStudy(c.Context(), *address)
		if err != nil {
			return err
		}
		defer s.store.Close()
		return do(c.Context(), s)
	}
	return c
}

func (a *app) tuneShowCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "show --study FILE",
		Short: "Show a study: its trials and its verdict",
		Long:  "Shows a study, also while it is at work: all trials, the best ones and the verdict. --out writes a page of it.",
		Example: `  carousel tune show --study classify-study.db
  carousel tune show --study classify-study.db --out study.html`,
	}
	page := c.Flags().String("out", "", "also write a page of the study: HTML `file`")
	return a.ofStudy(c, func(ctx context.Context, s *openedStudy) error {
		sum, err := s.summary(ctx)
		if err != nil {
			return err
		}
		if *page != "" {
			if err := s.page(sum).WriteFile(*page); err != nil {
				return err
			}
		}
		return a.emit("tune.show", sum, func(w io.Writer) {
			s.print(w, sum, s.list)
			if *page != "" {
				fmt.Fprintf(w, "\nThe page is %s.\n", *page)
			}
		})
	})
}

// exportedStudy is the result of tune export.
type exportedStudy struct {
	Study      string           `json:"study"`      // where it is kept
	Subject    string           `json:"subject"`    // what is tuned
	Data       string           `json:"data"`       // checksum of the data; may be empty
	Objectives []tune.Objective `json:"objectives"` // what trials are compared by
	Space      string           `json:"space"`      // what is chosen from, as a space file in YAML
	Options    tune.Options     `json:"options"`    // what the trials follow from besides
	Trials     []*tune.Record   `json:"trials"`     // all of them, by number
}

func (a *app) tuneExportCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "export --study FILE",
		Short: "Print all trials of a study, as CSV or JSON",
		Long:  "Prints all trials of a study by number: as CSV, or with --json as one object with their learning curves.",
		Example: `  carousel tune export --study classify-study.db > trials.csv
  carousel tune export --study classify-study.db --json > trials.json`,
	}
	return a.ofStudy(c, func(ctx context.Context, s *openedStudy) error {
		out := &exportedStudy{Study: s.address, Subject: s.header.Subject, Data: s.header.Data, Objectives: s.Options.Objectives, Space: s.header.Space, Options: s.Options, Trials: s.list}
		return a.emit("tune.export", out, s.writeCSV)
	})
}

// writeCSV writes a line for each trial, with all digits.
func (s *openedStudy) writeCSV(w io.Writer) {
	exact := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	head := []string{"number", "state"}
	for _, o := range s.Options.Objectives {
		head = append(head, o.Name)
	}
	head = append(head, "steps", "seconds", "origin")
	for _, p := range s.Space.Params {
		head = append(head, p.Name)
	}
	measures := map[string]bool{}
	for _, r := range s.list {
		for name := range r.Measures {
			measures[name] = !slices.Contains(head, name)
		}
	}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(measures)), func(name string) bool { return !measures[name] })
	table := csv.NewWriter(w) // whose errors are w's, which keeps them
	table.Write(append(slices.Concat(head, names), "error"))
	for _, r := range s.list {
		row := []string{strconv.Itoa(r.Number), string(r.State)}
		for i := range s.Options.Objectives {
			text := ""
			if values := results(r); i < len(values) {
				text = exact(values[i])
			}
			row = append(row, text)
		}
		row = append(row, strconv.Itoa(r.Steps), exact(r.Seconds), r.Origin)
		for _, p := range s.Space.Params {
			text := ""
			if v, has := r.Values[p.Name]; has {
				text = p.Text(v)
			}
			row = append(row, text)
		}
		for _, name := range names {
			text := ""
			if x, has := r.Measures[name]; has {
				text = exact(x)
			}
			row = append(row, text)
		}
		table.Write(append(row, r.Error))
	}
	table.Flush()
}

// bestTrials is the result of tune best.
type bestTrials struct {
	Study   string          `json:"study"`             // where it is kept
	Best    []*tune.Record  `json:"best"`              // the winner over several seeds or, before these are known, the best trial; of several objectives all that no other one is better than in all, by number
	Verdict *trials.Verdict `json:"verdict,omitempty"` // on the best ones, which were trained with several seeds
}

func (a *app) tuneBestCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "best --study FILE",
		Short: "Print the best trial of a study, as a recipe",
		Long: `Prints the parameters of the best trial as a recipe, which train TASK --config takes: of the
winner over several seeds if the study has come so far. Of several objectives it prints each
trial that no other one is better than in all of them.`,
		Example: "  carousel tune best --study classify-study.db > best.yaml",
	}
	return a.ofStudy(c, func(ctx context.Context, s *openedStudy) error {
		list := s.best()
		if len(list) == 0 {
			return fmt.Errorf("the study in %s has no complete trial that keeps all constraints yet (%s)", s.address, countStates(countOf(s.list)))
		}
		if len(s.Options.Objectives) == 1 {
			list = list[:1]
		}
		out := &bestTrials{Study: s.address, Best: list, Verdict: s.verdict}
		return a.emit("tune.best", out, func(w io.Writer) {
			for i, r := range list {
				if i > 0 {
					fmt.Fprintln(w, "---")
				}
				fmt.Fprintf(w, "# trial %d: %s\n", r.Number, s.resultLine(r))
				io.WriteString(w, s.recipe(r))
			}
		})
	})
}

// recipe writes the values of a trial as a recipe, below what all trials of a task have in common.
func (s *openedStudy) recipe(r *tune.Record) string {
	var b strings.Builder
	if what, settings, _ := strings.Cut(s.header.Subject, "\n"); what != "command" {
		for line := range strings.Lines(settings) {
			if name, _, _ := strings.Cut(line, ":"); r.Values[name] == nil {
				b.WriteString(line)
			}
		}
	}
	for _, p := range s.Space.Params {
		if v, has := r.Values[p.Name]; has {
			fmt.Fprintf(&b, "%s: %s\n", yaml.Quote(p.Name), yaml.Quote(p.Text(v)))
		}
	}
	return b.String()
}

func countOf(list []*tune.Record) map[tune.State]int {
	states := map[tune.State]int{}
	for _, r := range list {
		states[r.State]++
	}
	return states
}

// resultLine is the objectives of a trial with their names.
func (s *openedStudy) resultLine(r *tune.Record) string {
	var parts []string
	for i, o := range s.Options.Objectives {
		if text := valueText(results(r), i); text != "" {
			parts = append(parts, o.Name+" "+text)
		}
	}
	return strings.Join(parts, ", ")
}

// importances is the result of tune importance.
type importances struct {
	Study      string            `json:"study"`        // where it is kept
	At         int               `json:"at,omitempty"` // units of work after which trials are compared, where few are complete; absent where complete trials are
	Parameters []tune.Importance `json:"parameters"`   // of the space, the most important first
}

func (a *app) tuneImportanceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "importance --study FILE",
		Short: "Say which parameters make trials good",
		Long: `Prints for each parameter its share in what tells the best tenth of the trials from all of them
(PED-ANOVA, Watanabe et al. 2023). A parameter of small share can be left at its default.`,
		Example: "  carousel tune importance --study classify-study.db",
	}
	return a.ofStudy(c, func(ctx context.Context, s *openedStudy) error {
		shown, at := s.comparable()
		list, err := s.Importance(shown)
		if err != nil {
			return err
		}
		return a.emit("tune.importance", &importances{s.address, at, list}, func(w io.Writer) {
			if at > 0 {
				fmt.Fprintf(w, "By the results after %s, since few trials are complete\n\n", s.unitsText(at))
			}
			t := report.NewTable("parameter", "importance")
			for _, one := range list {
				t.Add(one.Name, report.Percent(one.Share))
			}
			t.Print(w)
		})
	})
}
