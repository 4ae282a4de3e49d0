"""python -m procd."""

from procd.cli.main import main

if __name__ == "__main__":
    main()
