"""The same services from code without an event loop.

Prints:

    {'name': 'Ada'}
    the first call computes: 4
    the second one does not: 4
    ['user:1', 'square:2']
"""

from noobly import SyncNoobly


def main() -> None:
    with SyncNoobly.open() as noobly:
        cache = noobly.caching
        cache.put("user:1", {"name": "Ada"}, ttl=60)
        print(cache.get("user:1"))

        @cache.cached("square:{number}", ttl=60)
        def square(number: int) -> int:
            return number * number

        print(f"the first call computes: {square(2)}")
        print(f"the second one does not: {square(2)}")
        print(sorted(cache.keys(), reverse=True))


if __name__ == "__main__":
    main()
