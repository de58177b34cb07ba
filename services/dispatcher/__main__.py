"""`python -m services.dispatcher`."""

from services.dispatcher.app import main

if __name__ == "__main__":
    main()
