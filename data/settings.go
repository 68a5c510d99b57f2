package data

// Setting wraps an error about a setting, from another package, in an
// [*InputError]. nil stays nil.
func Setting(err error) error {
	if err == nil {
		return nil
	}
	return Errorf("%w", err)
}
