// Package recipe fills the settings of structs from recipe files, name=value
// pairs and flags.
package recipe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/internal/settings"
)

// Group marks a flag, in its annotations, with the heading that it stands under
// in --help.
const Group = "carousel_group"

// Set is the settings of one or more structs by name: what flags, recipe files
// and --set all write.
type Set struct {
	list   []*Flag
	byName map[string]*Flag
}

// Flag is the pflag.Value of one setting. It keeps the text until Resolve has
// applied what a flag overrides.
type Flag struct {
	*settings.Setting
	texts []string // in the order given
}

// Of is the settings of the structs that ptrs point to.
func Of(ptrs ...any) *Set {
	s := &Set{byName: map[string]*Flag{}}
	for _, ptr := range ptrs {
		for _, one := range settings.List(ptr) {
			f := &Flag{Setting: one}
			s.list = append(s.list, f)
			s.byName[settings.Fold(one.Flag())] = f
		}
	}
	return s
}

// Without leaves some to the program, and returns the set.
func (s *Set) Without(names ...string) *Set {
	for _, name := range names {
		s.list = slices.DeleteFunc(s.list, func(f *Flag) bool { return f.Name == name })
		delete(s.byName, settings.Fold(name))
	}
	return s
}

// Given says whether the flag of any of some settings was given; without names,
// whether any flag was.
func (s *Set) Given(names ...string) bool {
	return slices.ContainsFunc(s.list, func(f *Flag) bool {
		return f.texts != nil && (len(names) == 0 || slices.Contains(names, f.Name))
	})
}

// Bind makes a flag of every setting, but not of those that are flags of every
// command.
func (s *Set) Bind(flags *pflag.FlagSet, inherited ...string) {
	for _, one := range s.list {
		if slices.Contains(inherited, one.Flag()) {
			continue
		}
		f := flags.VarPF(one, one.Flag(), "", one.Describe())
		if one.IsBool() {
			f.NoOptDefVal = "true"
		}
		if one.IsZero() {
			f.DefValue = "" // the help says what nothing means
		}
		f.Annotations = map[string][]string{Group: {one.Group}}
	}
}

// Resolve writes the settings in rising order of rank over the defaults: the
// recipe file (if named), the --set pairs, then the flags given.
func (s *Set) Resolve(recipe string, pairs []string) error {
	if recipe != "" {
		if err := s.readFile(recipe); err != nil {
			return err
		}
	}
	for _, pair := range pairs {
		name, text, ok := strings.Cut(pair, "=")
		if !ok {
			return fmt.Errorf("--set %q: want name=value", pair)
		}
		one, err := s.lookup(strings.TrimSpace(name))
		if err != nil {
			return fmt.Errorf("--set: %w", err)
		}
		if err := one.Assign(text); err != nil {
			return fmt.Errorf("--set %s: %w", pair, err)
		}
	}
	for _, one := range s.list {
		if one.texts == nil {
			continue
		}
		if err := one.Assign(one.texts...); err != nil {
			return fmt.Errorf("--%s: %w", one.Flag(), err)
		}
	}
	return nil
}

// lookup finds a setting by name, in either spelling (min-lr, min_lr).
func (s *Set) lookup(name string) (*Flag, error) {
	if one := s.byName[settings.Fold(name)]; one != nil {
		return one, nil
	}
	var names []string
	for _, one := range s.list {
		names = append(names, one.Flag())
	}
	return nil, fmt.Errorf("unknown setting %q%s", name, settings.DidYouMean(name, names, "", ""))
}

// Set keeps the text of a flag after checking that it can be assigned.
func (f *Flag) Set(text string) error {
	texts := append(f.texts, text)
	if err := f.Try(texts...); err != nil {
		return err
	}
	f.texts = texts
	return nil
}

// String is the setting's value as one would type it, or what was typed.
func (f *Flag) String() string {
	switch {
	case f == nil || f.Setting == nil:
		return ""
	case f.texts != nil: // which Resolve assigns
		return strings.Join(f.texts, ",")
	}
	return f.Setting.String()
}

// Type names the kind of value in help texts.
func (f *Flag) Type() string { return f.Kind() }
