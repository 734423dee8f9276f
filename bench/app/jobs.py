from bench.config import Config
def run_job(config: Config) -> int:
    from bench import catalogue, plan
    p = plan.make(config, catalogue.load())
    for c in p.cases: print(c.key, c.label)
    return 0
