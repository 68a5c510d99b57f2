package recipe

import (
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/internal/yaml"
)

type recipeFields struct {
	Hidden  int           `json:"hidden" help:"hidden units a layer"`
	MinLR   float64       `json:"min_lr" help:"learning rate at the end"`
	Cell    string        `json:"cell" help:"kind of cell"`
	Both    bool          `json:"bidirectional" help:"both directions"`
	Targets []string      `json:"target" help:"columns to forecast"`
	Levels  []float64     `json:"quantiles" help:"levels"`
	MaxTime time.Duration `json:"max_time" help:"time to stop after"`
	Seed    uint64        `json:"seed" help:"bound by every command"`
	Private int           `json:"private" help:"p"`
	Skipped int           `json:"-"`
}

func bound(t *testing.T, cfg *recipeFields) (*Set, *pflag.FlagSet) {
	t.Helper()
	s := Of(cfg)
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s.Bind(flags, "seed")
	return s, flags
}

func TestSettingsRank(t *testing.T) {
	recipe := filepath.Join(t.TempDir(), "r.yaml")
	text := "# a comment\nhidden: 10\nmin_lr: 1e-6\ncell: gru\nbidirectional: true\ntarget: [a, 'b,c']\nquantiles:\n  - 0.1\n  - 0.9\nmax-time: 2m\nprivate: 3\n"
	if err := os.WriteFile(recipe, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := recipeFields{Hidden: 64, MinLR: 1e-5, Cell: "lstm"}
	s, flags := bound(t, &cfg)
	if err := flags.Parse([]string{"--hidden=30", "--quantiles", "0.5", "--quantiles", "0.2,0.8"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Resolve(recipe, []string{"hidden=20", "min-lr=0.5"}); err != nil {
		t.Fatal(err)
	}
	want := recipeFields{
		Hidden: 30, MinLR: 0.5, Cell: "gru", Both: true, Targets: []string{"a", "b,c"},
		Levels: []float64{0.5, 0.2, 0.8}, MaxTime: 2 * time.Minute, Private: 3,
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got %+v\nwant %+v", cfg, want)
	}
	if flags.Lookup("seed") != nil {
		t.Error("a flag that exists above got a flag of its own")
	}
}

func TestSettingsErrors(t *testing.T) {
	tests := []struct{ name, recipe, set, want string }{
		{"unknown key", "hidden: 1\n\nhiden: 10\n", "", `:3: unknown setting "hiden"; did you mean hidden?`},
		{"wrong type", "hidden: many\n", "", `:1: hidden: want a whole number, got "many"`},
		{"list for one value", "hidden: [1, 2]\n", "", ":1: hidden: want one value, got a list"},
		{"nested", "hidden:\n  a: 1\n", "", "hidden: want a value or a list of values"},
		{"no value", "cell: null\n", "", ":1: cell: want a value"},
		{"no mapping", "- a\n- b\n", "", `want lines of the form "name: value"`},
		{"syntax", "hidden: [1\n", "", ":1: "},
		{"twice", "hidden: 1\nhidden: 2\n", "", ":2: "},
		{"no equals sign", "", "hidden", `--set "hidden": want name=value`},
		{"set unknown", "", "cel=gru", `unknown setting "cel"; did you mean cell?`},
		{"set infinite", "", "min-lr=inf", `want a number, got "inf"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var cfg recipeFields
			s, _ := bound(t, &cfg)
			recipe := ""
			if tt.recipe != "" {
				recipe = filepath.Join(t.TempDir(), "r.yaml")
				if err := os.WriteFile(recipe, []byte(tt.recipe), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var pairs []string
			if tt.set != "" {
				pairs = []string{tt.set}
			}
			err := s.Resolve(recipe, pairs)
			if err == nil {
				t.Fatalf("no error; config %+v", cfg)
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %q\nwant one line with %q", err, tt.want)
			}
		})
	}
}

func TestRecipeTooLargeForTheParser(t *testing.T) {
	indented := ""
	for i := range 150 {
		indented += strings.Repeat(" ", i) + strings.Repeat("a", i%3+1) + ":\n"
	}
	for name, text := range map[string]string{
		"list in list":       "target: " + strings.Repeat("[", 101) + "a" + strings.Repeat("]", 101),
		"lists without ends": strings.Repeat("[", 60_000),
		"entries":            strings.Repeat("- ", 30_000),
		"entry lines":        "hidden:\n" + strings.Repeat("- ", 101),
		"mappings":           strings.Repeat("{a: ", 10_000),
		"both":               strings.Repeat("- ", 60) + strings.Repeat("[", 60),
		"keys":               strings.Repeat("? ", 30_000),
		"indented":           indented,
		"after a setting":    "hidden: 3\n" + strings.Repeat("[", 101),
		"long":               "target: [" + strings.Repeat("a, ", 1<<19) + "b]",
		"long comment":       "#" + strings.Repeat("x", 1<<20),
		"blank lines":        "cell: |\n" + strings.Repeat("\n", 60_000),
		"lines of blanks":    "cell: >\r\n" + strings.Repeat("\t \r\n", 15_000),
		"documents":          strings.Repeat("hidden: 1\n---\n", 4_000),
		"ends of documents":  strings.Repeat("hidden: 1\n...\n", 4_000),
	} {
		_, err := readBounded(t, text)
		if err == nil || !slices.ContainsFunc([]string{
			"nested more than 100 deep", "more than 65536 bytes", "at most 100 blank lines in a row", "want one document of settings",
		}, func(want string) bool { return strings.Contains(err.Error(), want) }) {
			t.Errorf("%s: got %.200v", name, err)
		}
	}
	cfg := recipeFields{}
	s, _ := bound(t, &cfg)
	want := strings.Repeat("[", 200) // in quotes it is no nesting
	if err := s.read("r.yaml", "target:\n"+strings.Repeat("- x\n", 500)+"cell: '"+want+"'\n"); err != nil || len(cfg.Targets) != 500 || cfg.Cell != want {
		t.Errorf("%v: %d targets, cell %q", err, len(cfg.Targets), cfg.Cell)
	}
}

// readBounded reads a recipe from a file, in memory that is bounded whatever it holds.
func readBounded(t *testing.T, text string) (recipeFields, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "r.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var cfg recipeFields
	s, _ := bound(t, &cfg)
	var err error
	checkMemory(t, text, func() { err = s.Resolve(path, nil) })
	return cfg, err
}

func checkMemory(t *testing.T, text string, read func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	read()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("%.20q and more: %d MB for %d bytes", text, n>>20, len(text))
	}
}

// The longest recipes are read, within the same bound.
func TestLongRecipe(t *testing.T) {
	const n = 20_000
	for _, text := range []string{
		"target: [" + strings.Repeat("1, ", n) + "1]",
		"target:\n" + strings.Repeat("- 1\n", n/2),
		"target: [" + strings.Repeat("'1',", n/2) + "1]",
		"quantiles: [" + strings.Repeat("1,", n) + "1]",
	} {
		cfg, err := readBounded(t, text)
		if got, want := len(cfg.Targets)+len(cfg.Levels), strings.Count(text, "1"); err != nil || got != want {
			t.Errorf("%.20q and more: %d items, want %d; %v", text, got, want, err)
		}
	}
}

func FuzzRecipe(f *testing.F) {
	for _, seed := range []string{"hidden: 10\nmin_lr: 1e-6\n", "target: [a, 'b,c']\nquantiles:\n  - 0.1\n", "a: &a {b: *a}", "- - [", "cell: |\n  x\n", "\xff: \x00", "? a\n: b", "max-time: 2m # x\n---\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > yaml.MaxText {
			return
		}
		s := Of(&recipeFields{})
		var err error
		checkMemory(t, text, func() { err = s.read("r.yaml", text) })
		if err != nil && (strings.Count(err.Error(), "\n") > 0 || !strings.HasPrefix(err.Error(), "r.yaml")) {
			t.Errorf("message %q", err)
		}
	})
}
