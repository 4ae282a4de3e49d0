unset ZDOTDIR
