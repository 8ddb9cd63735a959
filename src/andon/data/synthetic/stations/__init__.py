"""The six stations, in the study's order."""

from andon.data.synthetic.station import Station
from andon.data.synthetic.stations.engine_wiring import EngineWiring
from andon.data.synthetic.stations.tank_screw import TankScrew

__all__ = ["STATIONS"]

STATIONS: dict[str, Station] = {station.name: station for station in (EngineWiring(), TankScrew())}
