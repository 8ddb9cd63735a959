"""The six stations, in the study's order."""

from andon.synthetic.station import Station
from andon.synthetic.stations.engine_wiring import EngineWiring
from andon.synthetic.stations.pipe import PipeClip, PipeStaple
from andon.synthetic.stations.tank_screw import TankScrew
from andon.synthetic.stations.underbody_pipes import UnderbodyPipes
from andon.synthetic.stations.underbody_screw import UnderbodyScrew

__all__ = ["STATIONS"]

STATIONS: dict[str, Station] = {
    station.name: station
    for station in (EngineWiring(), PipeClip(), PipeStaple(), TankScrew(), UnderbodyPipes(), UnderbodyScrew())
}
